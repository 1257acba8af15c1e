"""Atomic writes: a file or directory is either complete or absent, whatever happens in between.

And private files without a name, for what does not fit into memory.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write beside, fsync, rename. Text is UTF-8 with the newlines it has. Raises OSError."""
    raw = content.encode("utf-8") if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write; on success it becomes `path` (replacing an older one), else it vanishes."""
    beside = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        yield beside
        _sync_file(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_directory(path.parent)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a directory to fill; on success it becomes `path` (replacing an older one), else it vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{path.name}.building-", dir=path.parent))
    try:
        building.chmod(0o755)
        yield building
        for file in building.rglob("*"):
            if file.is_file():
                _sync_file(file)
        _sync_directory(building)
        if path.exists():
            _replace_directory(building, path)
        else:
            building.rename(path)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    _sync_directory(path.parent)


def _replace_directory(new: Path, path: Path) -> None:
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
    path.rename(old / path.name)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Delete a directory that is there whole or not at all, whoever looks. Raises FileNotFoundError."""
    gone = path.with_name(f".{path.name}.old-{secrets.token_hex(4)}")
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Delete what a killed process left half-built in `directory`."""
    for pattern in (".*.building-*", ".*.old-*"):
        for leftover in directory.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)
    for leftover in directory.glob(".*.writing-*"):
        leftover.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open a directory; its renames are journalled.
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class PrivateFile:
    """A file that grows at its end and is read anywhere, by this process alone.

    A new one has no name where the system permits that, lies where `TMPDIR` says, and is gone when it is dropped,
    however the process ends. It is read with calls, not mapped: what was read is then not this process's memory.
    """

    def __init__(self, file: Path | None = None) -> None:
        """`file` is an existing one, to be read only."""
        opened = cast(BinaryIO, tempfile.TemporaryFile(prefix="plume-") if file is None else file.open("rb"))  # noqa: SIM115
        self._file, self._lock, self._written = opened, threading.Lock(), False
        weakref.finalize(self, opened.close)

    def append(self, raw: bytes) -> None:
        if not self._written:
            self._file.seek(0, os.SEEK_END)
        self._written = True
        self._file.write(raw)

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`."""
        with self._lock:
            self._written = False
            self._file.seek(start)
            return self._file.read(end - start)
