"""From a request to its answer: handing it to the model's worker, and what becomes of it on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request as HttpRequest
from openai.types import CompletionUsage
from openai.types.completion_usage import PromptTokensDetails
from starlette.requests import ClientDisconnect

from plume.errors import PlumeError
from plume.generation.reply import Request
from plume.serving import record, sse
from plume.serving.errors import ApiError, from_plume
from plume.serving.keys import Caller
from plume.serving.models import Loaded
from plume.serving.service import Service, ShuttingDown
from plume.serving.worker import Overloaded, Ticket, TimedOut

T = TypeVar("T")


async def submit(service: Service, loaded: Loaded, requests: Sequence[Request], *, whole: bool = False) -> Ticket:
    """Hand requests to the model; their answers come in pieces, or each as a `whole`. Raises ApiError 429 when too much
    waits already, 400 for what cannot be answered."""
    try:
        ticket = await loaded.worker.submit(requests, service.settings.request_seconds, whole=whole)
    except (PlumeError, Overloaded) as error:
        raise failure(error) from None
    record.current().tickets.append(ticket)
    return ticket


async def on_model(loaded: Loaded, work: Callable[[], T]) -> T:
    """The result of something the model itself is needed for. Raises ApiError."""
    try:
        return await loaded.worker.run(work)
    except (PlumeError, Overloaded) as error:
        raise failure(error) from None


def failure(error: Exception) -> ApiError:
    """What a client is told of an answer that did not come to its end."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Overloaded):
        message = "too many requests wait for this model"
        return ApiError(429, message, type="rate_limit_error", code="queue_full", retry_after=error.seconds)
    if isinstance(error, ShuttingDown):
        return ApiError(503, error.message, type="server_error", code="shutting_down", retry=False)
    if isinstance(error, TimedOut):
        return ApiError(504, error.message, type="server_error", code="timeout", retry=False)
    assert isinstance(error, PlumeError)
    return from_plume(error)


async def unless_gone(request: HttpRequest, work: Coroutine[Any, Any, T]) -> T:
    """The result, or an end to the work as soon as nobody waits for it. Raises ApiError, ClientDisconnect."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    except (PlumeError, Overloaded) as error:
        raise failure(error) from None
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def told(events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """The events of a stream, the last of which is an error if it came to a bad end."""
    try:
        async for event in events:
            yield event
    except (PlumeError, Overloaded, ApiError) as error:
        yield sse.failure(failure(error))
    finally:
        await events.aclose()


def usage_of(prompt: int, written: int) -> CompletionUsage:
    """What the current request took; of the prompt's tokens, those that were known need not be read again."""
    details = PromptTokensDetails(cached_tokens=record.current().cached)
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=written,
        total_tokens=prompt + written,
        prompt_tokens_details=details,
    )


def account(service: Service, caller: Caller, prompt: int, written: int) -> CompletionUsage:
    """What an answer took, for the client and the limits."""
    usage = usage_of(prompt, written)
    service.limits.written(caller, written)
    return usage
