"""Files that the server keeps: what was uploaded, and what jobs and batches have written."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from openai.types import FileObject
from pydantic import Field

from plume.errors import DataError, NotFound
from plume.serving.documents import Documents, Record
from plume.serving.errors import ApiError

Uploaded = Literal["fine-tune", "batch", "evals", "user_data"]
Purpose = Literal[Uploaded, "fine-tune-results", "batch_output"]
Status = Literal["uploaded", "processed", "error"]
_SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".md", ".parquet")  # decide how a file is read


class StoredFile(FileObject):
    """OpenAI's file; its type leaves out one purpose that its uploads may have."""

    purpose: Purpose  # type: ignore[assignment]


class FileRecord(Record):
    """A file; `checked` says that its status is final. `expires_at` in seconds since 1970."""

    filename: str
    bytes: int
    purpose: Purpose
    status: Status = "processed"
    status_details: str | None = None
    expires_at: int | None = None
    request: str = Field(default="", description="What was uploaded under a key, by which its repetition is known.")
    shape: str = Field(default="", description="The suffix of its name, if it is one that says how to read it.")

    def wire(self) -> StoredFile:
        return StoredFile(
            id=self.id,
            bytes=self.bytes,
            created_at=self.created_at,
            filename=self.filename,
            object="file",
            purpose=self.purpose,
            status=self.status,
            expires_at=self.expires_at,
            status_details=self.status_details,
        )


class Files:
    """Files by their ids. One that has expired is gone, whether or not anybody has deleted it yet."""

    def __init__(self, data_dir: Path) -> None:
        self.documents = Documents(data_dir / "files", FileRecord, "file-", "file")

    def find(self, id: str, tenant: str) -> FileRecord:
        """Raises NotFound."""
        record = self.documents.find(id, tenant)
        if expired(record):
            raise NotFound(f"the file {id!r} has expired")
        return record

    def all(self, tenant: str) -> list[FileRecord]:
        return [record for record in self.documents.all(tenant) if not expired(record)]

    def content(self, record: FileRecord) -> Path:
        return self.documents.path(record.id) / content_name(record)

    def keep(self, id: str, tenant: str, filename: str, purpose: Purpose, content: bytes | Path) -> FileRecord:
        """Store what the server itself has written, once: an id that is there already is left as it is."""
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        record = FileRecord(
            id=id, tenant=tenant, filename=filename, bytes=size, purpose=purpose, shape=shape_of(filename)
        )

        def fill(building: Path) -> None:
            if isinstance(content, Path):
                shutil.copyfile(content, building / content_name(record))
            else:
                (building / content_name(record)).write_bytes(content)

        try:
            return self.documents.find(id)
        except NotFound:
            return self.documents.add(record, fill)

    def remove_expired(self) -> None:
        for record in self.documents.all():
            if expired(record):
                self.documents.remove(record.id)


def content_name(record: FileRecord) -> str:
    return f"content{record.shape}"


def shape_of(filename: str) -> str:
    """The suffix under which content may be kept: one of those that are known, whatever the client called it."""
    suffix = Path(filename).suffix.lower()
    return suffix if suffix in _SUFFIXES else ""


def expired(record: FileRecord) -> bool:
    return record.expires_at is not None and record.expires_at <= time.time()


def named(error: DataError, names: dict[str, str], most: int = 5) -> str:
    """The findings that stopped something, files called as their owner called them."""
    lines = [f"{found.source}: {found.message} ({found.hint})" for found in error.findings[:most]]
    more = len(error.findings) - most
    return renamed("\n".join([*(lines or [error.message]), *([f"and {more} more"] if more > 0 else [])]), names)


def renamed(text: str, names: dict[str, str]) -> str:
    for path, name in names.items():
        text = text.replace(path, name)
    return text


def no_room(error: OSError) -> ApiError:
    """What a client is told when something cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        message = "there is no room left to store this"
    else:
        message = f"this could not be stored: {error.strerror}"
    return ApiError(507, message, type="server_error", code="insufficient_storage", retry=False)


def storing(work: Callable[[], object]) -> None:
    """Raises ApiError where the disk does not take it."""
    try:
        work()
    except OSError as error:
        raise no_room(error) from None
