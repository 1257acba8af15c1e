"""Server-sent events: each leaves at once, silence is filled with comments, a client that goes away ends it all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from plume.serving.errors import ApiError

# Without a schema: OpenAPI 3.1 has none for events, and programs disagree whether one is of the whole or of an event.
RESPONSES: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029)}
DONE = "data: [DONE]\n\n"


class EventStream(StreamingResponse):
    """Events as they come. The generator is closed however the answer ends, also when nobody listens any more."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], ping_seconds: float) -> None:
        super().__init__(events, headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._events, self._ping_seconds = events, ping_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()

    async def stream_response(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        said = loop.time()

        async def counted(message: Message) -> None:
            nonlocal said
            said = loop.time()
            await send(message)

        async def ping() -> None:
            while True:
                await asyncio.sleep(self._ping_seconds - (loop.time() - said))
                if loop.time() - said >= self._ping_seconds:
                    await counted({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})

        pinging = asyncio.ensure_future(ping())
        try:
            await super().stream_response(counted)
        finally:
            pinging.cancel()


async def resumed(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """A stream whose first event was waited for already; empty ones are left out."""
    try:
        yield first
        async for event in rest:
            if event:
                yield event
    finally:
        await rest.aclose()


def event(data: str, name: str | None = None) -> str:
    """One event; `data` is JSON on one line. Clients that split lines as Python does see ends of lines in more places
    than the standard has: those characters, which stand in strings alone, are written as escapes."""
    data = data.translate(_LINE_ENDS)
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


def failure(error: ApiError) -> str:
    """The event by which clients learn that an answer was cut off."""
    return event(json.dumps(error.body(), ensure_ascii=False))
