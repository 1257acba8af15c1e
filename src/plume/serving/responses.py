"""/v1/responses: a reply to what was said before, kept for what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from openai.types.responses import Response as ResponseObject
from openai.types.responses import ResponseStreamEvent, ResponseUsage
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from plume.errors import NotFound, PlumeError
from plume.memory.store import Tenant, new_id
from plume.serving import record, sse
from plume.serving.answers import account, failure, told, unless_gone
from plume.serving.errors import ApiError, not_found, unsupported
from plume.serving.idempotency import IdempotencyKey, reserved
from plume.serving.items import LISTED, named
from plume.serving.keys import Caller, Reader, Writer
from plume.serving.pages import AnyQuery, Ordered, page_of
from plume.serving.past import KIND, Past, keep, kept, no_response, past
from plume.serving.response_body import InputBody, ResponseBody, begun, check, check_past, input_tokens, plan
from plume.serving.response_reply import Writer as ResponseWriter
from plume.serving.said import said
from plume.serving.service import Service, ServiceDep
from plume.serving.sse import RESPONSES, EventStream, resumed
from plume.serving.token_texts import TokenTexts
from plume.serving.worker import Overloaded

router = APIRouter(tags=["responses"])


class Described(BaseModel):
    """A response as the OpenAPI document has it: with all the kinds of items that OpenAI knows, it would take seconds
    to make."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    error: dict[str, Any] | None


_RESPONSE: dict[int | str, dict[str, Any]] = {200: {"model": Described}}
_CREATED: dict[int | str, dict[str, Any]] = {200: {"model": Described, **RESPONSES[200]}}


class RetrieveQuery(AnyQuery):
    stream: Literal["false"] | None = None


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


@router.post("/v1/responses", response_model=None, responses=_CREATED)
async def create(
    body: ResponseBody,
    request: Request,
    service: ServiceDep,
    caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """A reply to the input, after what `previous_response_id` or `conversation` names; whole or as a stream of events.

    It is kept for 30 days unless `store` is false. In a conversation, input and output are added to it together; of
    several requests for one conversation, each waits until the one before is over. The same `Idempotency-Key` with the
    same body gives the response that it has made already; that needs `store`, and no `stream`."""
    request.state.model = body.model
    check(body)
    if idempotency_key:
        return await _once(body, request, service, caller, idempotency_key)
    events = _events(body, service, caller, new_id("resp"))
    if body.stream:
        rendered = _rendered(events)
        first = await anext(rendered)  # what cannot be answered is no stream
        return EventStream(told(resumed(first, rendered)), service.settings.ping_seconds)
    return _json(await unless_gone(request, _last(events)))


@router.post("/v1/responses/input_tokens")
async def count_input_tokens(body: InputBody, service: ServiceDep, caller: Reader) -> InputTokenCountResponse:
    """How many tokens the model would read for a response; nothing is answered, and more than fits may be counted."""
    check_past(body)
    loaded = await service.models.open(body.model, caller.tenant)
    tenant, context = service.store.tenant(caller.tenant), loaded.bundle.model.context_length
    before = await asyncio.to_thread(_before, tenant, body, context)
    recall = service.settings.recall
    counting = partial(input_tokens, body, before.messages, named(body.input), loaded.bundle, recall=recall)
    count = await loaded.prepare(counting)
    return InputTokenCountResponse(input_tokens=count, object="response.input_tokens")


@router.post("/v1/responses/compact", response_model=None)
async def compact(caller: Writer) -> Response:  # noqa: ARG001 - it may ask
    """Not supported: what a model has read is kept as it was said."""
    message = "conversations are not compacted by this server: leave out items, or begin a new conversation"
    raise ApiError(400, message, param="compact", code="unsupported_endpoint")


async def _once(body: ResponseBody, request: Request, service: Service, caller: Caller, key: str) -> Response:
    """The response that a key stands for, made now or before. Raises ApiError."""
    if body.stream or body.store is False:
        name = "stream" if body.stream else "store"
        message = f"an Idempotency-Key needs an answer that is kept and told at once: leave out {name}"
        raise unsupported("Idempotency-Key", message)
    tenant, asked = service.store.tenant(caller.tenant), {"path": "responses", **body.model_dump()}
    (id,) = await asyncio.to_thread(reserved, tenant, key, asked, [new_id("resp")], body.about)
    async with service.turn(caller.tenant, id):
        with suppress(NotFound):
            document = await asyncio.to_thread(tenant.get, KIND, id)
            return JSONResponse(document.body["response"])
        return _json(await unless_gone(request, _last(_events(body, service, caller, id))))


@router.get("/v1/responses/{response_id}", response_model=None, responses=_RESPONSE)
async def retrieve(
    response_id: str, service: ServiceDep, caller: Reader, query: Annotated[RetrieveQuery, Query()]
) -> Response:
    """A response that was kept."""
    del query  # the client may say that it wants no stream
    document = await asyncio.to_thread(kept, service.store.tenant(caller.tenant), response_id)
    return JSONResponse(document.body["response"])


@router.delete("/v1/responses/{response_id}")
async def delete(response_id: str, service: ServiceDep, caller: Writer) -> DeletedResponse:
    """Forget a response. What went on from it cannot go on any more; a conversation keeps its items."""
    tenant = service.store.tenant(caller.tenant)
    try:
        await asyncio.to_thread(tenant.discard, KIND, response_id)
    except NotFound:
        raise no_response(response_id) from None
    return DeletedResponse(id=response_id, object="response", deleted=True)


@router.post("/v1/responses/{response_id}/cancel", response_model=None, responses=_RESPONSE)
async def cancel(response_id: str, service: ServiceDep, caller: Writer) -> Response:
    """Only responses in the background can be cancelled, and there are none; closing a stream cancels its response."""
    await asyncio.to_thread(kept, service.store.tenant(caller.tenant), response_id)
    message = "only a response in the background can be cancelled; this one is over"
    raise ApiError(400, message, param="response_id", code="response_not_cancellable")


@router.get("/v1/responses/{response_id}/input_items", response_model=None, responses=LISTED)
async def input_items(response_id: str, service: ServiceDep, caller: Reader, query: Ordered) -> Response:
    """What the request itself said, without what came before it."""
    document = await asyncio.to_thread(kept, service.store.tenant(caller.tenant), response_id)
    items: list[dict[str, Any]] = document.body["input"]
    if query.order == "desc":
        items = items[::-1]
    if query.after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == query.after]
        if not places:
            raise not_found(f"there is no item {query.after!r} in response {response_id!r}", param="after")
        items = items[places[0] + 1 :]
    part = items[: query.limit]
    shown = page_of(part, [item["id"] for item in part], more=len(items) > query.limit)
    return JSONResponse(shown.model_dump())


async def _events(
    body: ResponseBody, service: Service, caller: Caller, id: str
) -> AsyncGenerator[ResponseStreamEvent, None]:
    """The whole course of a response; when the last event comes, everything has been written down."""
    tenant = service.store.tenant(caller.tenant)
    loaded = await service.models.open(body.model, caller.tenant)
    given, context = named(body.input), loaded.bundle.model.context_length
    async with service.turn(caller.tenant, body.conversation_id):
        before = await asyncio.to_thread(_before, tenant, body, context)
        recall = service.settings.recall
        planning = partial(plan, body, before.messages, given, loaded.bundle, caller.tenant, recall=recall)
        planned, asked = await loaded.prepare(planning)
        service.limits.tokens(caller, len(asked.ids))
        texts = TokenTexts(loaded.bundle) if body.logprobs else None
        writer = ResponseWriter(begun(body, asked.sampling, id), texts)
        pieces = said(service, loaded, [asked], planned.calling, whole=not body.stream)
        try:
            await anext(pieces)
            for event in writer.begin():
                yield event
            async for piece in pieces:
                for event in writer.add(piece):
                    yield event
            for event in writer.end(_usage(len(asked.ids), writer.tokens)):
                yield event
            store = body.store is not False
            await asyncio.to_thread(keep, tenant, writer.response, given, before, store=store)
            yield writer.last()
        except (PlumeError, Overloaded, ApiError) as error:
            failed = failure(error)
            if writer.began:
                yield writer.failed(failed.error.message)
            raise failed from None
        finally:
            account(service, caller, len(asked.ids), writer.tokens)
            await pieces.aclose()


def _before(tenant: Tenant, body: InputBody, context: int) -> Past:
    cut = body.truncation == "auto"
    return past(tenant, body.previous_response_id, body.conversation_id, context, cut=cut)


async def _last(events: AsyncGenerator[ResponseStreamEvent, None]) -> ResponseObject:
    try:
        return [event async for event in events][-1].response  # type: ignore[union-attr]
    finally:
        await events.aclose()


async def _rendered(events: AsyncGenerator[ResponseStreamEvent, None]) -> AsyncGenerator[str, None]:
    try:
        async for event in events:
            yield sse.event(event.model_dump_json(exclude_unset=True, by_alias=True), event.type)
    finally:
        await events.aclose()


def _json(response: ResponseObject) -> Response:
    return Response(response.model_dump_json(exclude_unset=True, by_alias=True), media_type="application/json")


def _usage(prompt: int, written: int) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=record.current().cached, cache_write_tokens=0),
        output_tokens=written,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=prompt + written,
    )
