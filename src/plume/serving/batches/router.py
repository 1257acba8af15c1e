"""/v1/batches: many requests in one file, answered when there is room, into another file."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from openai.types import Batch
from pydantic import Field

from plume.errors import NotFound
from plume.serving.batches.records import BatchRecord
from plume.serving.errors import ApiError, invalid
from plume.serving.idempotency import IdempotencyKey, digest_of, key_of, same_request
from plume.serving.keys import Caller, Reader, Writer
from plume.serving.metadata import Metadata
from plume.serving.pages import Newest, Page, page_of, part_of
from plume.serving.sampling import Body
from plume.serving.stored import storing
from plume.serving.tasks import Tasks, TasksDep

router = APIRouter(prefix="/v1/batches", tags=["batches"])
_ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


class BatchBody(Body):
    """The parameters that are honoured."""

    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: Annotated[None, Field(description="Not supported: answers are kept until deleted.")] = None


@router.post("")
async def create(
    body: BatchBody, request: Request, tasks: TasksDep, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Batch:
    """Begin a batch. The same `Idempotency-Key` with the same body gives the batch that it has begun already."""
    paths = request.app.openapi()["paths"]
    served = [path for path in _ENDPOINTS if path in paths]
    if body.endpoint not in served:
        raise invalid("endpoint", f"endpoint: one of {', '.join(served)}, not {body.endpoint!r}")
    record = await asyncio.to_thread(_created, body, tasks, caller, idempotency_key)
    tasks.runner.wake()
    return await asyncio.to_thread(tasks.batches.wire, record)


@router.get("")
def list_batches(tasks: TasksDep, caller: Reader, query: Newest) -> Page[Batch]:
    """Your batches, newest first."""
    part, more = part_of(tasks.batches.documents.all(caller.tenant), query.after, query.limit)
    return page_of([tasks.batches.wire(one) for one in part], [one.id for one in part], more=more)


@router.get("/{batch_id}")
def retrieve(batch_id: str, tasks: TasksDep, caller: Reader) -> Batch:
    """How far a batch is."""
    return tasks.batches.wire(tasks.batches.documents.find(batch_id, caller.tenant))


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, tasks: TasksDep, caller: Writer) -> Batch:
    """Answer no more of it; what was answered becomes a file all the same."""
    tasks.batches.documents.find(batch_id, caller.tenant)

    def changed(record: BatchRecord) -> BatchRecord:
        if record.final or record.status == "finalizing":
            message = f"the batch cannot be cancelled: it is {record.status}"
            raise ApiError(400, message, param="batch_id", code="batch_is_over")
        return record if record.status == "cancelling" else record.began("cancelling")

    record = tasks.batches.documents.change(batch_id, changed)
    tasks.runner.wake(batch_id)
    return tasks.batches.wire(record)


def _created(body: BatchBody, tasks: Tasks, caller: Caller, idempotency_key: str | None) -> BatchRecord:
    try:
        file = tasks.files.find(body.input_file_id, caller.tenant)
    except NotFound as error:
        raise ApiError(400, error.message, param="input_file_id", code="file_not_found") from None
    if file.purpose != "batch":
        raise invalid("input_file_id", f"input_file_id: {file.id} was uploaded for {file.purpose}, not for batch")
    key, request = key_of(idempotency_key), digest_of(body.model_dump())
    record = BatchRecord(
        id=tasks.batches.documents.new_id(),
        tenant=caller.tenant,
        idempotency=key,
        metadata=body.metadata,
        key=caller.key,
        input_file=file.id,
        endpoint=body.endpoint,
        request=request,
        output_file=tasks.files.documents.new_id(),
        error_file=tasks.files.documents.new_id(),
    )
    with tasks.creating:
        known = tasks.batches.documents.created_under(key, caller.tenant)
        if known is not None:
            return same_request(known, known.request, request)
        storing(lambda: tasks.batches.add(record, file))
    return record
