"""Answers the requests of batches one by one, by the same endpoints that clients ask, as far as there is room."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Iterator
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from plume.serving.batches.records import ERRORS, OUTPUT, SECONDS, Batches, BatchRecord, Line, append
from plume.serving.keys import CALLER, Caller
from plume.serving.service import Service

log = logging.getLogger("plume.serving.batches")
_SHARE = 4  # one in so many rows of a model is a batch's at most
_REST = 1.0  # seconds before a request that found no room is tried again, unless it was told how long to wait


class Runner:
    """Belongs to the event loop, but for `wake`. One batch at a time, the oldest first."""

    def __init__(self, app: ASGIApp, service: Service, batches: Batches) -> None:
        self._app, self._service, self._batches = app, service, batches
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._current: tuple[str, asyncio.Task[bool]] | None = None

    def wake(self, cancelled: str | None = None) -> None:
        """Batches have changed; one may have been cancelled."""
        self._loop.call_soon_threadsafe(self._woken, cancelled)

    async def run(self) -> None:
        """Until cancelled; what was not answered by then is left to be."""
        while True:
            self._changed.clear()
            for record in reversed(await asyncio.to_thread(self._batches.documents.all)):
                if not record.final and not self._service.draining.is_set():
                    await self._bring_to_its_end(record)
            await self._changed.wait()

    def _woken(self, cancelled: str | None) -> None:
        self._changed.set()
        if self._current is not None and self._current[0] == cancelled:
            self._current[1].cancel()

    async def _bring_to_its_end(self, record: BatchRecord) -> None:
        task = asyncio.ensure_future(self._answered(record))
        self._current = (record.id, task)
        try:
            await asyncio.wait({task})
        finally:
            self._current = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", record.id, exc_info=error)
            fault = {"code": "internal_error", "line": None, "message": "the batch failed", "param": None}
            await self._change(record.id, "failed", errors=[fault])
        elif not self._service.draining.is_set():
            await self._concluded(record.id, late=not task.cancelled() and task.result())

    async def _answered(self, record: BatchRecord) -> bool:
        """Every request that has no answer gets one; True when time is up before."""
        if record.status == "validating":
            most = self._service.settings.max_body_nbytes
            lines, errors = await asyncio.to_thread(self._batches.faults, record, most)
            await self._change(record.id, "failed" if errors else "in_progress", lines=lines, errors=errors)
        record = await asyncio.to_thread(self._batches.documents.find, record.id)
        if record.status != "in_progress":
            return False
        done = await asyncio.to_thread(self._batches.answered, record.id)
        waiting = (line for line in self._batches.lines(record.id) if line.custom_id not in done)
        left = record.created_at + SECONDS - time.time()
        try:
            async with asyncio.timeout(max(0.0, left)), asyncio.TaskGroup() as group:
                for _ in range(max(1, self._service.settings.rows // _SHARE)):
                    group.create_task(self._answer_all(record, waiting))
        except TimeoutError:
            return True
        return False

    async def _answer_all(self, record: BatchRecord, waiting: Iterator[Line]) -> None:
        for line in waiting:
            answer = await self._answer(record, line)
            if answer is None:
                return
            kind = OUTPUT if answer["response"]["status_code"] == 200 else ERRORS
            await asyncio.to_thread(append, self._batches.answers(record.id, kind), answer)

    async def _answer(self, record: BatchRecord, line: Line) -> dict[str, Any] | None:
        """None when the server is shutting down before there is one."""
        body = json.dumps(line.body).encode()
        caller = Caller(record.tenant, record.key, ("read", "write"))
        while not self._service.draining.is_set():
            status, headers, content = await ask(self._app, record.endpoint, body, caller)
            if status not in (429, 503) or headers.get("x-should-retry") == "false":
                if status == 503 and self._service.draining.is_set():
                    return None
                response = {"status_code": status, "request_id": headers.get("x-request-id"), "body": content}
                id = f"batch_req_{secrets.token_hex(12)}"
                return {"id": id, "custom_id": line.custom_id, "response": response, "error": None}
            await asyncio.sleep(int(headers.get("retry-after-ms", _REST * 1000)) / 1000)
        return None

    async def _concluded(self, id: str, *, late: bool) -> None:
        """The answers become files, and the status says how it has ended."""
        record = await asyncio.to_thread(self._batches.documents.find, id)
        if record.status == "failed":
            return
        if record.status == "in_progress" and not late:
            record = await self._change(id, "finalizing")
        await asyncio.to_thread(self._publish, record, late=late)
        endings = {"in_progress": "expired", "finalizing": "completed", "cancelling": "cancelled"}
        usage = await asyncio.to_thread(self._batches.usage, id)
        record = await self._change(id, endings[record.status], usage=usage)

    def _publish(self, record: BatchRecord, *, late: bool) -> None:
        done = self._batches.answered(record.id)
        error = {"code": "batch_expired", "message": "the batch was not over in 24 hours"}
        for line in self._batches.lines(record.id) if late else ():
            if line.custom_id not in done:
                id = f"batch_req_{secrets.token_hex(12)}"
                answer = {"id": id, "custom_id": line.custom_id, "response": None, "error": error}
                append(self._batches.answers(record.id, ERRORS), answer)
        for kind, file in ((OUTPUT, record.output_file), (ERRORS, record.error_file)):
            path = self._batches.answers(record.id, kind)
            if path.exists() and path.stat().st_size:
                name = f"{record.id}_{kind}"
                self._batches.files.keep(file, record.tenant, name, "batch_output", path)

    async def _change(self, id: str, status: Any, **change: Any) -> BatchRecord:
        """The next status, unless it was cancelled meanwhile or is over."""

        def changed(record: BatchRecord) -> BatchRecord:
            if record.final or (record.status == "cancelling" and status != "cancelled"):
                return record
            return record.began(status, **change)

        return await asyncio.to_thread(self._batches.documents.change, id, changed)


async def ask(app: ASGIApp, path: str, body: bytes, caller: Caller) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of what an endpoint answers to a caller who is known already."""
    headers = {b"host": b"localhost", b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": list(headers.items()),
        "client": None,
        "server": None,
        CALLER: caller,
    }
    asked = False
    status, found = 0, {}
    content = bytearray()

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # nobody goes away
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, found
        if message["type"] == "http.response.start":
            status = message["status"]
            found = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            content.extend(message.get("body", b""))

    await app(scope, receive, send)
    return status, found, json.loads(bytes(content))
