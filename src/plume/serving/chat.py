"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from openai.types.chat import ChatCompletion
from pydantic import Field
from starlette.responses import Response

from plume.generation.reply import Request as EngineRequest
from plume.serving.answers import account, told, unless_gone, usage_of
from plume.serving.chat_reply import Head, Whole, streamed, usage_event
from plume.serving.errors import invalid
from plume.serving.formats import ResponseFormat, Tool, ToolChoice, format_grammar
from plume.serving.keys import Caller, Writer
from plume.serving.messages import ChatMessage, messages_of
from plume.serving.models import Loaded
from plume.serving.plan import Asked, plan_reply
from plume.serving.said import Calling, said
from plume.serving.sampling import SamplingBody, sampling_of, scope_of
from plume.serving.service import Service, ServiceDep
from plume.serving.sse import DONE, RESPONSES, EventStream, resumed
from plume.types import Message

router = APIRouter(tags=["chat"])


class ChatBody(SamplingBody):
    """The parameters that are honoured. Those with one value may be given, with that value."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    safety_identifier: str | None = None
    modalities: list[Literal["text"]] | None = None
    reasoning_effort: Literal["none"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the engine is asked, and how its answer is to be read."""

    request: EngineRequest
    calling: Calling | None = None


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=RESPONSES)
async def create(body: ChatBody, request: Request, service: ServiceDep, caller: Writer) -> Response:
    """The next message of a conversation, whole or as a stream of `chat.completion.chunk`."""
    messages = messages_of(body.messages)
    loaded = await service.models.open(body.model, caller.tenant)
    plan = await loaded.prepare(partial(planned, body, messages, loaded, caller))
    service.limits.tokens(caller, len(plan.request.ids))
    head = Head.new(body.model, loaded.fingerprint, bool(body.logprobs), loaded.bundle)
    if body.stream:
        events = _events(body, service, caller, loaded, plan, head)
        first = await anext(events)  # what cannot be answered is no stream
        return EventStream(told(resumed(first, events)), service.settings.ping_seconds)
    whole = await unless_gone(request, _whole(service, loaded, plan, head))
    usage = account(service, caller, len(plan.request.ids), whole.tokens)
    return Response(whole.completion(usage).model_dump_json(exclude_unset=True), media_type="application/json")


def planned(body: ChatBody, messages: tuple[Message, ...], loaded: Loaded, caller: Caller) -> Plan:
    """Everything that is decided before a token is chosen. Raises ApiError."""
    bundle, form = loaded.bundle, body.response_format
    plan = plan_reply(
        Asked(
            messages,
            body.tools or (),
            body.tool_choice,
            partial(format_grammar, form, bundle) if form is not None and form.type != "text" else None,
            _asked(body),
            messages_param="messages",
            limit_param="max_completion_tokens",
            shape_param="response_format",
            tool_param="tools[{}].function.parameters",
        ),
        bundle,
    )
    sampling = sampling_of(body, bundle, max_new_tokens=plan.most, logprobs=_alternatives(body))
    return Plan(EngineRequest(plan.ids, sampling, plan.grammar, scope=scope_of(body, caller.tenant)), plan.calling)


def _asked(body: ChatBody) -> int | None:
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise invalid("max_tokens", "max_tokens and max_completion_tokens differ: give one of them")
    return body.max_completion_tokens or body.max_tokens


def _alternatives(body: ChatBody) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs", "top_logprobs needs logprobs: true")
    return (body.top_logprobs or 0) if body.logprobs else None


async def _whole(service: Service, loaded: Loaded, plan: Plan, head: Head) -> Whole:
    whole = Whole(head, plan.request.sampling.n)
    async for piece in said(service, loaded, [plan.request], plan.calling, whole=True):
        whole.add(piece)
    return whole


async def _events(
    body: ChatBody,
    service: Service,
    caller: Caller,
    loaded: Loaded,
    plan: Plan,
    head: Head,
) -> AsyncGenerator[str, None]:
    written = 0
    pieces = said(service, loaded, [plan.request], plan.calling)
    try:
        async for event, tokens in streamed(pieces, head, plan.request.sampling.n, usage=body.include_usage):
            written += tokens
            yield event
        if body.include_usage:
            yield usage_event(head, usage_of(len(plan.request.ids), written))
        yield DONE
    finally:
        account(service, caller, len(plan.request.ids), written)
        await pieces.aclose()
