"""/v1/responses: a reply to what was said before, kept for what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from openai.types.responses import Response as ResponseObject
from openai.types.responses import ResponseStreamEvent, ResponseUsage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from plume.errors import NotFound, PlumeError
from plume.serving import sse
from plume.serving.answers import account, failure, told, unless_gone
from plume.serving.cursors import Page, page
from plume.serving.errors import ApiError, not_found
from plume.serving.items import named
from plume.serving.keys import Caller, Reader, Writer
from plume.serving.past import KIND, keep, kept, no_response, past
from plume.serving.response_body import ResponseBody, begun, check, plan
from plume.serving.response_reply import Writer as ResponseWriter
from plume.serving.said import said
from plume.serving.service import Service, ServiceDep
from plume.serving.sse import RESPONSES, EventStream, resumed
from plume.serving.token_texts import TokenTexts
from plume.serving.worker import Overloaded

# No response models: with all the kinds of items that OpenAI knows, the OpenAPI document would take seconds to make.
router = APIRouter(tags=["responses"])


class RetrieveQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    stream: Literal["false"] | None = None


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


@router.post("/v1/responses", response_model=None, responses=RESPONSES)
async def create(body: ResponseBody, request: Request, service: ServiceDep, caller: Writer) -> Response:
    """A reply to the input, after what `previous_response_id` or `conversation` names; whole or as a stream of events.

    It is kept for 30 days unless `store` is false. In a conversation, input and output are added to it together; of
    several requests for one conversation, each waits until the one before is over."""
    request.state.model = body.model
    check(body)
    events = _events(body, service, caller)
    if body.stream:
        rendered = _rendered(events)
        first = await anext(rendered)  # what cannot be answered is no stream
        return EventStream(told(resumed(first, rendered)), service.settings.ping_seconds)
    return _json(await unless_gone(request, _last(events)))


@router.get("/v1/responses/{response_id}", response_model=None)
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


@router.post("/v1/responses/{response_id}/cancel", response_model=None)
async def cancel(response_id: str, service: ServiceDep, caller: Writer) -> Response:
    """Only responses in the background can be cancelled, and there are none; closing a stream cancels its response."""
    await asyncio.to_thread(kept, service.store.tenant(caller.tenant), response_id)
    message = "only a response in the background can be cancelled; this one is over"
    raise ApiError(400, message, param="response_id", code="response_not_cancellable")


@router.get("/v1/responses/{response_id}/input_items", response_model=None)
async def input_items(response_id: str, service: ServiceDep, caller: Reader, query: Page) -> Response:
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
    return JSONResponse(page(items, query.limit, lambda item: str(item["id"])))


async def _events(body: ResponseBody, service: Service, caller: Caller) -> AsyncGenerator[ResponseStreamEvent, None]:
    """The whole course of a response; when the last event comes, everything has been written down."""
    tenant = service.store.tenant(caller.tenant)
    loaded = await service.models.open(body.model)
    given, context = named(body.input), loaded.bundle.model.context_length
    async with service.turn(caller.tenant, body.conversation_id):
        before = await asyncio.to_thread(past, tenant, body.previous_response_id, body.conversation_id, context)
        planning = partial(plan, body, before.messages, given, loaded.bundle, caller.tenant)
        planned, asked = await loaded.prepare(planning)
        service.limits.tokens(caller, len(asked.ids))
        texts = TokenTexts(loaded.bundle) if body.logprobs else None
        writer = ResponseWriter(begun(body, asked.sampling), texts)
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
            if writer.began:
                yield writer.failed(failure(error).error.message)
            raise
        finally:
            account(service, caller, len(asked.ids), writer.tokens)
            await pieces.aclose()


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
        input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
        output_tokens=written,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=prompt + written,
    )
