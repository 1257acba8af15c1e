"""What outlives a request: files, fine-tuning jobs and batches, and the tasks that bring them on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request

from plume.serving.batches.records import Batches
from plume.serving.batches.runner import Runner
from plume.serving.examination import Unexamined, examined
from plume.serving.jobs.records import Jobs
from plume.serving.jobs.supervisor import Supervisor
from plume.serving.stored import FileRecord, Files

log = logging.getLogger("plume.serving")
T = TypeVar("T")


class Tasks:
    """All of one server's. Made before it runs; `start` and `close` belong to its event loop."""

    def __init__(self, data_dir: Path, jobs_at_once: int) -> None:
        self._data_dir, self._at_once = data_dir.absolute(), jobs_at_once
        self.files = Files(data_dir)
        self.jobs = Jobs(data_dir, self.files)
        self.batches = Batches(data_dir, self.files)
        self.creating = threading.Lock()  # held while it is looked up whether a key has created something already
        self.keyed_uploads = asyncio.Lock()  # the same, for a file that is there but has not got its place
        self._supervisor: Supervisor | None = None
        self._runner: Runner | None = None
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def supervisor(self) -> Supervisor:
        assert self._supervisor is not None, "the server runs"
        return self._supervisor

    @property
    def runner(self) -> Runner:
        assert self._runner is not None, "the server runs"
        return self._runner

    def start(self, app: FastAPI) -> None:
        """Clear away what a killed server left half-made, and go on with what it left undone."""
        self.files.documents.remove_leftovers()
        self.files.remove_expired()
        self.jobs.remove_leftovers()
        self.batches.documents.remove_leftovers()
        self._supervisor = Supervisor(self._data_dir, self.jobs, self._at_once)
        self._runner = Runner(app, app.state.service, self.batches)
        self.background(self._supervisor.run())
        self.background(self._runner.run())
        for record in self.files.documents.all():
            if record.status == "uploaded":
                self.background(self.check(record))

    async def check(self, record: FileRecord) -> FileRecord:
        """The file with the doctor's verdict in it, which jobs may be waiting for. Raises NotFound."""
        details: str | None
        fit, details = False, "the file could not be checked; the server's log may say why"
        for _ in range(2):  # a process that was killed gets a second chance
            with contextlib.suppress(Unexamined):
                fit, details = await examined(self.files.content(record), record.filename)
                break
        change = {"status": "processed" if fit else "error", "status_details": details}
        change_by = self.files.documents.change
        checked = await asyncio.to_thread(change_by, record.id, lambda old: old.model_copy(update=change))
        self.supervisor.wake()
        return checked

    def background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that nobody waits for, or not to its end; its failure is logged."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the server failed", exc_info=task.exception())


def _tasks(request: Request) -> Tasks:
    tasks: Tasks = request.app.state.tasks
    return tasks


TasksDep = Annotated[Tasks, Depends(_tasks)]
