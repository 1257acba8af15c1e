"""Running the application: listening, and coming to an end in good order."""

from __future__ import annotations

import asyncio
import functools
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from plume.errors import UserError
from plume.serving.protocol import TimedProtocol
from plume.serving.service import Service

_GOODBYE = 5  # seconds for connections to close once nothing is under way any more


class Server(uvicorn.Server):
    """At the first signal no new request is taken and what is under way comes to its end; a second one ends it now."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._started = service, started
        self._finishing: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self.interrupted = sig == signal.SIGINT
        if self.loop is None or self._service.draining.is_set():
            self.should_exit = self.force_exit = True
        else:
            self.loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Begin to end. Called in the event loop."""
        if self._finishing is None:
            self._service.draining.set()
            self._finishing = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        await self._service.drain()
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Raises UserError for an address that cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OverflowError:
        raise UserError(f"{port} is not a port", "choose one from 1 to 65535, or 0 for any") from None
    except OSError as error:
        hint = "another program listens there: choose another --port" if port else "name an address of this machine"
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint) from None


def make_server(app: FastAPI, started: Callable[[], None]) -> Server:
    """A server for the application, with the times of its settings."""
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=functools.partial(TimedProtocol, header_seconds=service.settings.header_seconds),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE,
    )
    return Server(config, service, started)
