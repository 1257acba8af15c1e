"""What wraps every request: its id, its place in the count, the time its body may take, and one line in the log."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plume.serving import errors, record
from plume.serving.errors import ApiError
from plume.serving.record import Record
from plume.serving.service import Service

log = logging.getLogger("plume.serving.requests")
_ALWAYS = ("/healthz", "/readyz", "/metrics")  # answered while draining, and not waited for
_NO_ROUTE = "unknown"
_METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")
_UPLOADS = ("/v1/files",)  # whose bodies may be as large as a file
_SLOWEST = 64 * 2**10  # bytes a second that a body must keep up after its first seconds
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Envelope:
    """ASGI middleware around the whole application; what nobody caught becomes an answer without its traceback."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings = self._service.settings
        most = settings.max_upload_nbytes if scope["path"] in _UPLOADS else settings.max_body_nbytes
        exchange = _Exchange(scope, receive, send, most, settings.body_seconds)
        record.begin(exchange.record)
        counted = scope["path"] not in _ALWAYS
        if counted:
            self._service.begin()
        try:
            self._admit(scope, counted)
            exchange.check_length()
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = exchange.status or 499
        except ApiError as error:
            await exchange.fail(error)
        except Exception:
            log.exception("request %s failed", exchange.id)
            await exchange.fail(errors.internal_error())
        finally:
            if counted:
                self._service.end()
            self._note(scope, exchange)

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        """One line in the log, the counters and the trace of a request that is over."""
        method, route = scope["method"], getattr(scope.get("route"), "path", _NO_ROUTE)
        exchange.log(method, route)
        self._service.metrics.request(method if method in _METHODS else "other", route, exchange.status)
        if self._service.tracing is not None:
            self._service.tracing.answered(exchange.record, Headers(scope=scope), route, exchange.status)

    def _admit(self, scope: Scope, counted: bool) -> None:
        """Raises ApiError for what is not taken at all."""
        if counted and self._service.draining.is_set():
            raise ApiError(503, "the server is shutting down", type="server_error", code="shutting_down", retry=False)
        headers = Headers(scope=scope)
        host = urlsplit(f"//{headers.get('host', '')}").hostname
        if self._service.settings.loopback and host not in (*_LOCAL_NAMES, self._service.settings.host):
            # A page of another site may have its own name lead to this machine and read what it is not to.
            raise ApiError(403, f"the host {host!r} is not this server", type="permission_error", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            message = "requests of web pages from elsewhere are not taken"
            raise ApiError(403, message, type="permission_error", code="cross_origin")


class _Exchange:
    """One request and its answer on the way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int, body_seconds: float) -> None:
        self.id = f"req_{secrets.token_hex(16)}"
        self.record = Record(self.id)
        self._scope, self._receive, self._send = scope, receive, send
        self._most, self._body_seconds = most, body_seconds
        self._received = 0
        self._whole = False
        self.status = 0
        scope.setdefault("state", {})["request_id"] = self.id

    def check_length(self) -> None:
        """Raises ApiError 413 for a body that says itself that it is too large."""
        length = Headers(scope=self._scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next of the body. Raises ApiError 408 where it comes too slowly, 413 where it is too much."""
        if self._whole:
            return await self._receive()
        due = self.record.arrived + self._body_seconds + self._received / _SLOWEST
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                "the body did not arrive in time",
                code="request_timeout",
                retry=False,
                headers={"connection": "close"},
            ) from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._received > self._most:
                raise self._too_large()
        return message

    def _too_large(self) -> ApiError:
        message, headers = f"the body is larger than {self._most:,} bytes", {"connection": "close"}
        return ApiError(413, message, code="request_too_large", headers=headers)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            self.record.streamed = headers.get("content-type", "").startswith("text/event-stream")
            if self.status >= 500 and "x-should-retry" not in headers:
                headers["x-should-retry"] = "false"
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answer with an error, if nothing has been answered yet; what was begun is cut off for the client to see."""
        if self.status:
            raise ConnectionResetError("the answer was cut off")
        await errors.response(error)(self._scope, self._receive, self.send)

    def log(self, method: str, route: str) -> None:
        """One line, without anything that was said."""
        done = self.record
        fields: dict[str, Any] = {
            "request_id": self.id,
            "method": method,
            "route": route,
            "status": self.status,
            "ms": _ms(time.monotonic() - done.arrived),
        }
        if "key" in self._scope["state"]:
            fields["key"] = self._scope["state"]["key"]
        if done.model is not None:
            fields["model"] = done.model
        if done.sampling is not None:
            fields |= {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.written}
            fields["finish_reasons"] = [reason for _, reason in sorted(done.finishes.items())]
        if done.accepted is not None and done.begun is not None:
            fields["queue_ms"] = _ms(done.begun - done.accepted)
        if done.first is not None:
            fields["first_token_ms"] = _ms(done.first - done.arrived)
        log.info("%s %s %s", method, route, self.status, extra={"fields": fields})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
