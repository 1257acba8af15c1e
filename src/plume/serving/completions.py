"""POST /v1/completions: continuing texts or token ids, and how likely a model finds them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from openai.types import Completion
from pydantic import Field
from starlette.responses import Response

from plume.generation.reply import Request as EngineRequest
from plume.generation.scoring import prompt_logprobs
from plume.models.bundle import Bundle
from plume.serving.answers import account, on_model, told, unless_gone, usage_of
from plume.serving.completion_reply import Asked, Head, Whole, streamed, usage_event
from plume.serving.errors import ApiError, invalid
from plume.serving.keys import Caller, Writer
from plume.serving.models import Loaded
from plume.serving.said import said
from plume.serving.sampling import SamplingBody, room_for, sampling_of, scope_of
from plume.serving.service import Service, ServiceDep
from plume.serving.sse import DONE, RESPONSES, EventStream, resumed
from plume.types import Sampling, TokenLogprob

router = APIRouter(tags=["completions"])
_DEFAULT_MAX_TOKENS = 16
_PROMPTS = 2048
_READ = 4096  # tokens scored between two tokens of answers

_Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(fail_fast=True, min_length=1)]
_Texts = Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=_PROMPTS)]
_Rows = Annotated[list[_Ids], Field(fail_fast=True, min_length=1, max_length=_PROMPTS)]


class CompletionBody(SamplingBody):
    """The parameters that are honoured; `suffix` may be there, empty."""

    prompt: str | _Texts | _Ids | _Rows
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    suffix: None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The prompts with what each is continued by; no request where nothing is to be written."""

    prompts: tuple[Asked, ...]
    requests: tuple[EngineRequest, ...]
    n: int

    @property
    def tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.prompts)


@router.post("/v1/completions", response_model=Completion, responses=RESPONSES)
async def create(body: CompletionBody, request: Request, service: ServiceDep, caller: Writer) -> Response:
    """Continuations of one or several prompts, whole or as a stream; with `echo` the prompts themselves come first,
    with `logprobs` how likely their tokens are too. Token ids are taken as they are: no BOS is added."""
    if body.best_of is not None and body.stream:
        raise invalid("best_of", "best_of cannot be streamed: which answers are best is known at the end")
    loaded = await service.models.open(body.model, caller.tenant)
    plan = await loaded.prepare(partial(planned, body, loaded, caller))
    service.limits.tokens(caller, plan.tokens)
    head = Head.new(body.model, loaded)
    if body.stream:
        events = _events(body, service, caller, loaded, plan, head)
        first = await anext(events)  # what cannot be answered is no stream
        return EventStream(told(resumed(first, events)), service.settings.ping_seconds)
    whole = await unless_gone(request, _whole(body, service, loaded, plan, head))
    usage = account(service, caller, plan.tokens, whole.tokens)
    return Response(whole.completion(usage).model_dump_json(exclude_unset=True), media_type="application/json")


def planned(body: CompletionBody, loaded: Loaded, caller: Caller) -> Plan:
    """Everything that is decided before a token is chosen. Raises ApiError."""
    bundle = loaded.bundle
    asked = _prompts(body, bundle)
    most = _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    sampling = sampling_of(body, bundle, max_new_tokens=max(1, most), logprobs=body.logprobs, best_of=body.best_of)
    requests = [
        EngineRequest(
            prompt.ids, _own(sampling, number, prompt, most, bundle), None, False, scope_of(body, caller.tenant)
        )
        for number, prompt in enumerate(asked)
        if most
    ]
    return Plan(asked, tuple(requests), sampling.n)


def _own(sampling: Sampling, number: int, prompt: Asked, most: int, bundle: Bundle) -> Sampling:
    """One prompt's settings: a seed of its own, and no more tokens than the context holds."""
    room = room_for(len(prompt.ids), bundle, "prompt")
    answers = sampling.best_of or sampling.n
    return replace(sampling, seed=sampling.seed + number * answers, max_new_tokens=min(most, room))


def _prompts(body: CompletionBody, bundle: Bundle) -> tuple[Asked, ...]:
    given = body.prompt
    if isinstance(given, str):
        return (_text(given, bundle),)
    if isinstance(given[0], int):
        return (_ids(given, bundle),)
    return tuple(_text(one, bundle) if isinstance(one, str) else _ids(one, bundle) for one in given)


def _text(text: str, bundle: Bundle) -> Asked:
    ids = bundle.tokenizer.encode(text, add_special_tokens=True, specials=True)
    if not ids:
        raise invalid("prompt", "the prompt is empty: there is nothing to continue")
    return _fits(Asked(text, tuple(ids)), bundle)


def _ids(ids: Sequence[int], bundle: Bundle) -> Asked:
    if max(ids) >= bundle.model.vocab_size:
        raise invalid("prompt", f"prompt: {max(ids)} is not the id of a token of this model")
    return _fits(Asked(bundle.tokenizer.decode(ids), tuple(ids)), bundle)


def _fits(prompt: Asked, bundle: Bundle) -> Asked:
    context = bundle.model.context_length
    if len(prompt.ids) > context:
        message = f"the model's context is {context} tokens; the prompt has {len(prompt.ids)}"
        raise ApiError(400, message, param="prompt", code="context_length_exceeded")
    return prompt


async def _scored(body: CompletionBody, loaded: Loaded, plan: Plan) -> list[list[TokenLogprob | None]]:
    """How likely the tokens of the prompts are, where that was asked for."""
    if not body.echo or body.logprobs is None:
        return []
    found: list[list[TokenLogprob | None]] = []
    rows = [prompt.ids for prompt in plan.prompts]
    while rows:
        count = 1
        while count < len(rows) and (count + 1) * max(map(len, rows[: count + 1])) <= _READ:
            count += 1
        found += await on_model(loaded, partial(prompt_logprobs, loaded.bundle, rows[:count], body.logprobs))
        rows = rows[count:]
    return found


async def _whole(body: CompletionBody, service: Service, loaded: Loaded, plan: Plan, head: Head) -> Whole:
    scores = await _scored(body, loaded, plan)
    whole = Whole(head, plan.prompts, plan.n, echo=bool(body.echo), logprobs=body.logprobs is not None, scores=scores)
    if plan.requests:
        async for piece in said(service, loaded, plan.requests, whole=True):
            whole.add(piece)
    return whole


async def _events(
    body: CompletionBody,
    service: Service,
    caller: Caller,
    loaded: Loaded,
    plan: Plan,
    head: Head,
) -> AsyncGenerator[str, None]:
    written = 0
    scores = await _scored(body, loaded, plan)
    whole = Whole(head, plan.prompts, plan.n, echo=bool(body.echo), logprobs=body.logprobs is not None, scores=scores)
    pieces = said(service, loaded, plan.requests) if plan.requests else None
    try:
        async for event, tokens in streamed(pieces, whole, usage=body.include_usage):
            written += tokens
            yield event
        if body.include_usage:
            yield usage_event(head, usage_of(plan.tokens, written))
        yield DONE
    finally:
        account(service, caller, plan.tokens, written)
        if pieces is not None:
            await pieces.aclose()
