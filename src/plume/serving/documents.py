"""Directories that each hold one JSON document, found by ids that are checked before they become part of a path.

Every change is one atomic write under a lock that other processes respect, so whoever is killed leaves whole documents.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from plume.errors import NotFound, UserError, shown
from plume.files import atomic_directory, remove_directory, remove_leftovers, write_atomic

DOCUMENT = "document.json"


class Record(BaseModel):
    """What every document has. `tenant` is whose it is; `idempotency` the digest of the key it was created under."""

    model_config = ConfigDict(extra="forbid")

    id: str
    tenant: str
    created_ns: int = Field(default_factory=time.time_ns)
    idempotency: str | None = None
    metadata: dict[str, str] | None = None

    @property
    def created_at(self) -> int:
        return self.created_ns // 10**9


R = TypeVar("R", bound=Record)


class Documents(Generic[R]):
    """The documents of one kind; safe for threads and for several processes."""

    def __init__(self, directory: Path, kind: type[R], prefix: str, noun: str) -> None:
        self.directory, self._kind, self._prefix, self._noun = directory.absolute(), kind, prefix, noun
        self._id = re.compile(re.escape(prefix) + "[0-9a-f]{24}")
        self._known: dict[str, tuple[tuple[int, int, int], R]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def new_id(self) -> str:
        return f"{self._prefix}{secrets.token_hex(12)}"

    def path(self, id: str) -> Path:
        """The directory of a document. Raises NotFound for what is no id."""
        if not self._id.fullmatch(id):
            raise self._missing(id)
        return self.directory / id

    def add(self, record: R, fill: Callable[[Path], None] = lambda _: None) -> R:
        """Keep a new document, with what else `fill` puts into its directory. Raises OSError."""
        with atomic_directory(self.path(record.id)) as building:
            fill(building)
            write_atomic(building / DOCUMENT, record.model_dump_json(indent=1))
        return record

    def find(self, id: str, tenant: str | None = None) -> R:
        """Raises NotFound, also for what belongs to another tenant."""
        record = self._read(self.path(id))
        if record is None or tenant not in (None, record.tenant):
            raise self._missing(id)
        return record

    def all(self, tenant: str | None = None) -> list[R]:
        """Newest first."""
        paths = (self.directory / name for name in os.listdir(self.directory) if self._id.fullmatch(name))  # noqa: PTH208
        found = [record for path in paths if (record := self._read(path)) and tenant in (None, record.tenant)]
        return sorted(found, key=lambda record: (record.created_ns, record.id), reverse=True)

    def created_under(self, idempotency: str | None, tenant: str) -> R | None:
        """What a key has created before."""
        return next((one for one in self.all(tenant) if idempotency and one.idempotency == idempotency), None)

    def change(self, id: str, change: Callable[[R], R]) -> R:
        """Replace a document by what `change` makes of it; nobody else changes it meanwhile. Raises NotFound."""
        path = self.path(id)
        if self._read(path) is None:
            raise self._missing(id)
        with FileLock(path / "lock"):
            record = self._read(path)
            if record is None:
                raise self._missing(id)
            changed = change(record)
            if changed != record:
                write_atomic(path / DOCUMENT, changed.model_dump_json(indent=1))
        return changed

    def remove(self, id: str) -> None:
        """Raises NotFound."""
        path = self.path(id)
        try:
            remove_directory(path)
        except FileNotFoundError:
            raise self._missing(id) from None
        self._known.pop(id, None)

    def remove_leftovers(self) -> None:
        """Delete what a killed process left half-made. Only for whoever holds the data directory."""
        remove_leftovers(self.directory)

    def _read(self, path: Path) -> R | None:
        file = path / DOCUMENT
        try:
            found = file.stat()
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._known.get(path.name)
            if known is not None and known[0] == mark:
                return known[1]
            record = self._kind.model_validate_json(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._known[path.name] = (mark, record)
        return record

    def _missing(self, id: str) -> NotFound:
        return NotFound(f"there is no {self._noun} {shown(id)} here")


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Keep a data directory to this process until the end of the block, or of the process.

    Raises UserError when another server has it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    holder, lock = data_dir / "server.pid", FileLock(data_dir / "server.lock", blocking=False)
    try:
        lock.acquire()
    except TimeoutError:
        number = ""
        with suppress(OSError):
            number = f" (process {holder.read_text(encoding='utf-8').strip()})"
        raise UserError(
            f"{data_dir} is in use by another server{number}", "stop that one, or name another --data-dir"
        ) from None
    try:
        write_atomic(holder, f"{os.getpid()}\n")
        yield
    finally:
        lock.release()
