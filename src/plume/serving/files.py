"""/v1/files: uploads that are checked, lists, contents, deletion."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Request
from openai.types import FileDeleted
from pydantic import Field
from starlette.responses import FileResponse, Response

from plume.files import atomic_directory, write_atomic
from plume.serving.documents import DOCUMENT
from plume.serving.errors import ApiError, invalid
from plume.serving.idempotency import IdempotencyKey, digest_of, key_of, same_request
from plume.serving.keys import Caller, Reader, Writer
from plume.serving.pages import OrderedQuery, Page, page_of, part_of
from plume.serving.stored import FileRecord, StoredFile, Uploaded, content_name, expired, no_room, shape_of
from plume.serving.tasks import Tasks, TasksDep
from plume.serving.uploads import Upload

router = APIRouter(tags=["files"])
_WAITED_FOR = 8 * 2**20  # bytes of a file that is checked before it is answered for; larger ones are checked behind it
_LIFETIMES = (3600, 2_592_000)  # seconds that a file may ask to be kept
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(get_args(Uploaded))},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
                    },
                }
            }
        },
    }
}


class FileQuery(OrderedQuery):
    purpose: str | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000


@router.post("/v1/files", openapi_extra=_BODY)
async def create(
    request: Request, tasks: TasksDep, caller: Writer, idempotency_key: IdempotencyKey = None
) -> StoredFile:
    """Keep a file. One for fine-tuning is checked: `status` says whether it can be used, `status_details` why not. The
    same `Idempotency-Key` with the same upload gives the file that it has made already."""
    record, is_new = await _received(request, tasks, caller, key_of(idempotency_key))
    if record.status == "uploaded" and is_new:
        checking = tasks.background(tasks.check(record))
        if record.bytes <= _WAITED_FOR:
            record = await asyncio.shield(checking)
    return record.wire()


@router.get("/v1/files")
def list_files(tasks: TasksDep, caller: Reader, query: Annotated[FileQuery, Query()]) -> Page[StoredFile]:
    """Your files, newest first."""
    found = [record for record in tasks.files.all(caller.tenant) if query.purpose in (None, record.purpose)]
    part, more = part_of(found if query.order == "desc" else found[::-1], query.after, query.limit)
    return page_of([record.wire() for record in part], [record.id for record in part], more=more)


@router.get("/v1/files/{file_id}")
def retrieve(file_id: str, tasks: TasksDep, caller: Reader) -> StoredFile:
    """What is known of a file."""
    return tasks.files.find(file_id, caller.tenant).wire()


@router.get("/v1/files/{file_id}/content", response_class=FileResponse)
def content(file_id: str, tasks: TasksDep, caller: Reader) -> Response:
    """The bytes of a file."""
    record = tasks.files.find(file_id, caller.tenant)
    path = tasks.files.content(record)
    return FileResponse(path, media_type="application/octet-stream", filename=record.filename)


@router.delete("/v1/files/{file_id}")
def delete(file_id: str, tasks: TasksDep, caller: Writer) -> FileDeleted:
    """Delete a file; jobs that were begun with it have what they need."""
    tasks.files.documents.remove(tasks.files.find(file_id, caller.tenant).id)
    return FileDeleted(id=file_id, deleted=True, object="file")


class _Known(Exception):
    """The key of an upload has made this file already."""

    def __init__(self, record: FileRecord) -> None:
        super().__init__(record.id)
        self.record = record


async def _received(request: Request, tasks: Tasks, caller: Caller, key: str | None) -> tuple[FileRecord, bool]:
    """The body as a file, whole and on the disk, and whether it is new. Raises ApiError; then nothing of it is left."""
    documents = tasks.files.documents
    id = documents.new_id()
    try:
        async with contextlib.AsyncExitStack() as held:  # to the end, when the file is in its place
            with atomic_directory(documents.path(id)) as building, _uploading(request, building) as upload:
                async for piece in request.stream():
                    await asyncio.to_thread(upload.feed, piece)
                await asyncio.to_thread(upload.finish)
                record = _described(id, upload, caller, key)
                if key is not None:
                    await held.enter_async_context(tasks.keyed_uploads)
                    known = await asyncio.to_thread(documents.created_under, key, caller.tenant)
                    if known is not None and not expired(known):
                        raise _Known(same_request(known, known.request, record.request))
                (building / "upload").rename(building / content_name(record))
                write_atomic(building / DOCUMENT, record.model_dump_json(indent=1))
    except _Known as found:
        return found.record, False
    except OSError as error:
        raise no_room(error) from None
    return record, True


@contextlib.contextmanager
def _uploading(request: Request, building: Path) -> Iterator[Upload]:
    upload = Upload(request.headers.get("content-type", ""), building / "upload")
    try:
        yield upload
    finally:
        upload.close()


def _described(id: str, upload: Upload, caller: Caller, key: str | None) -> FileRecord:
    purpose: Any = upload.fields.get("purpose")
    if purpose is None:
        raise ApiError(400, "purpose is missing", param="purpose", code="missing_required_parameter")
    if purpose not in get_args(Uploaded):
        raise invalid("purpose", f"purpose: one of {', '.join(get_args(Uploaded))}, not {purpose!r}")
    filename = upload.filename or ""
    now = time.time_ns()
    return FileRecord(
        id=id,
        tenant=caller.tenant,
        created_ns=now,
        idempotency=key,
        request=digest_of({"filename": filename, "sha256": upload.sha256.hexdigest(), **upload.fields}) if key else "",
        filename=filename,
        bytes=upload.size,
        purpose=purpose,
        status="uploaded" if purpose == "fine-tune" else "processed",
        expires_at=_expiry(upload.fields, now // 10**9),
        shape=shape_of(filename),
    )


def _expiry(fields: dict[str, str], now: int) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise invalid("expires_after[anchor]", "expires_after[anchor] must be created_at")
    least, most = _LIFETIMES
    if seconds is None or not seconds.isdecimal() or not least <= int(seconds[:10]) <= most:
        raise invalid("expires_after[seconds]", f"expires_after[seconds] must be from {least} to {most}")
    return now + int(seconds)
