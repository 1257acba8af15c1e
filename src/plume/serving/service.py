"""What all endpoints share while a server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated
from weakref import WeakValueDictionary

from fastapi import Depends, Request

from plume.errors import PlumeError
from plume.memory.store import Store
from plume.serving.limits import Limits
from plume.serving.models import Models
from plume.serving.settings import Settings

if TYPE_CHECKING:
    from plume.serving.metrics import Metrics
    from plume.serving.tracing import Tracing

log = logging.getLogger("plume.serving")
_LAST_WORDS = 5.0  # seconds for the errors of cancelled requests to leave


class ShuttingDown(PlumeError):
    """The server did not wait for this answer any longer."""


@dataclass
class Service:
    """One server. While `draining` is set nothing new begins; `active` requests are under way."""

    settings: Settings
    models: Models
    limits: Limits
    store: Store
    metrics: Metrics
    tracing: Tracing | None = None
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    active: int = 0
    _turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def begin(self) -> None:
        self.active += 1
        self.idle.clear()

    def end(self) -> None:
        self.active -= 1
        if not self.active:
            self.idle.set()

    @asynccontextmanager
    async def turn(self, tenant: str, conversation: str | None) -> AsyncIterator[None]:
        """One at a time goes on with a conversation, so that each has read what the one before it added."""
        if conversation is None:
            yield
            return
        async with self._turns.setdefault((tenant, conversation), asyncio.Lock()):
            yield

    async def drain(self) -> None:
        """Let what was begun come to its end, for `drain_seconds`; then end it with an error."""
        self.draining.set()
        if not await self._idle_within(self.settings.drain_seconds):
            log.warning("%d requests are cancelled", self.active)
            self.models.abort(ShuttingDown("the server is shutting down", "ask again when it is back"))
            await self._idle_within(_LAST_WORDS)

    async def _idle_within(self, seconds: float) -> bool:
        if not self.active:
            return True
        try:
            await asyncio.wait_for(self.idle.wait(), seconds)
        except TimeoutError:
            return False
        return True


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
