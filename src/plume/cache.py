"""What is costly to find out about data, kept between runs in a directory of the user's own.

Entries are named by digests of everything they follow from, so a stale one is never asked for; they end with their own
digest, so a damaged one is never believed. Nothing here fails: without a place to write there is no cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

VARIABLE = "PLUME_CACHE"  # a directory, or `off`
LARGEST = 2**30  # bytes of all entries; the longest unused go first
_DIGEST = hashlib.sha256().digest_size
_READ = 2**20
_LIBRARIES = ("ftfy", "json-repair", "numpy", "phonenumberslite", "py3langid", "rapidfuzz", "tokenizers")


def directory() -> Path | None:
    """Where entries lie; None when the cache is off, or the directory is not the user's alone."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off":
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(chosen) if chosen else base / "plume"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = folder.stat()
    except (OSError, RuntimeError):  # the latter: nobody knows where home is
        return None
    if os.name != "nt" and (known.st_uid != os.getuid() or known.st_mode & 0o077):
        return None
    return folder


def name(kind: str, *parts: Any) -> str:
    """The name of an entry that follows from these values, from Plume's code and from the libraries under it."""
    whole = json.dumps([kind, _rules(), *parts], sort_keys=True, default=repr)
    return f"{kind}-{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()}"


def find(entry: str) -> Path | None:
    """The file of a sound entry, which counts as used now; its last 32 bytes are its digest."""
    folder = directory()
    if folder is None:
        return None
    path = folder / entry
    digest = hashlib.sha256()
    try:
        left = path.stat().st_size - _DIGEST
        with path.open("rb") as file:
            while left > 0 and (piece := file.read(min(_READ, left))):
                digest.update(piece)
                left -= len(piece)
            sound = left == 0 and file.read() == digest.digest()
        if sound:
            os.utime(path)
    except OSError:
        return None
    return path if sound else None


def load(entry: str) -> Any:
    """The value of a small entry; None when there is none."""
    path = find(entry)
    try:
        return None if path is None else json.loads(path.read_bytes()[:-_DIGEST])
    except (OSError, ValueError):
        return None


def keep(entry: str, value: Any) -> None:
    """Make a small entry of a JSON value."""
    store(entry, [json.dumps(value).encode()])


def store(entry: str, pieces: Iterable[bytes]) -> None:
    """Make an entry of some bytes; the longest unused entries make room for it."""
    folder = directory()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        handle, beside = tempfile.mkstemp(prefix=".writing-", dir=folder)
        digest = hashlib.sha256()
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - a handle
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.write(digest.digest())
            Path(beside).replace(folder / entry)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
        _make_room(folder)


def _make_room(folder: Path) -> None:
    entries = sorted(_entries(folder), reverse=True)
    total = 0
    for _, size, path in entries:
        total += size
        if total > LARGEST:
            path.unlink(missing_ok=True)


def _entries(folder: Path) -> Iterator[tuple[float, int, Path]]:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            known = path.stat()
            yield known.st_mtime, known.st_size, path


@cache
def _rules() -> str:
    """Stands for all that decides what is found: Plume's own code, and the versions of what it calls."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(str(file.relative_to(Path(__file__).parent)).encode() + b"\0" + file.read_bytes())
    for library in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            digest.update(f"{library} {metadata.version(library)}\0".encode())
    return digest.hexdigest()
