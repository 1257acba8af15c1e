"""Sees to it that every job comes to its end: one process after the other, started again when one dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from plume.errors import NotFound
from plume.serving.jobs.records import JobRecord, Jobs

log = logging.getLogger("plume.serving.jobs")
_DEATHS = 10  # of a job's process, without anything saved in between, after which the job has failed
_FAULT = 4  # deaths that one counts for that nobody has killed
_LAST_WORDS = 5.0  # seconds
_REST = 2.0  # seconds before a process that died is started again, times the deaths before it


class Supervisor:
    """Belongs to the event loop, but for `wake` and `stop`. Its processes end with it, and with this process."""

    def __init__(self, data_dir: Path, jobs: Jobs, at_once: int) -> None:
        self._data_dir, self._jobs, self._at_once = data_dir, jobs, at_once
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._resting: set[str] = set()

    def wake(self) -> None:
        """Jobs or their files have changed."""
        self._loop.call_soon_threadsafe(self._changed.set)

    def stop(self, id: str) -> None:
        """A job was paused or cancelled: its process has nothing more to do."""
        self._loop.call_soon_threadsafe(self._terminate, id)

    async def run(self) -> None:
        """Until cancelled; then every process is ended, and its job left to be gone on with."""
        try:
            while True:
                self._changed.clear()
                for record in await asyncio.to_thread(self._due):
                    if len(self._processes) < self._at_once and record.id not in self._processes:
                        await self._start(record)
                await self._changed.wait()
        finally:
            await self._end()

    def _due(self) -> list[JobRecord]:
        """Jobs that may run, the oldest first; those whose files were checked are queued on the way."""
        found = []
        for record in reversed(self._jobs.documents.all()):
            try:
                current = self._validated(record) if record.status == "validating_files" else record
            except NotFound:
                continue
            if current.status in ("queued", "running") and not current.paused and current.id not in self._resting:
                found.append(current)
        return found

    def _validated(self, record: JobRecord) -> JobRecord:
        """The job, queued or failed if the doctor has spoken about its files."""
        for param, id in (("training_file", record.training_file), ("validation_file", record.validation_file)):
            file = self._jobs.files.documents.find(id) if id else None
            if file is None or file.status == "processed":
                continue
            if file.status == "uploaded":
                return record
            details = file.status_details or "it holds no example"
            return self._jobs.fail(record.id, f"invalid_{param}", f"{file.filename} cannot be used: {details}", param)
        return self._jobs.advance(record.id, "queued", "Files validated, moving job to queued state", status="queued")

    async def _start(self, record: JobRecord) -> None:
        with (self._jobs.path(record.id) / "worker.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "plume.serving.jobs.worker",
                os.fspath(self._data_dir),
                record.id,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        self._processes[record.id] = process
        task = asyncio.ensure_future(self._watch(record.id, process))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _watch(self, id: str, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        del self._processes[id]
        try:
            record = await asyncio.to_thread(self._buried, id, code)
        except NotFound:
            record = None
        if record is not None and not record.final and not record.paused:
            self._resting.add(id)
            self._loop.call_later(_REST * (record.deaths - 1), self._rested, id)
        self._changed.set()

    def _buried(self, id: str, code: int) -> JobRecord:
        """The job after its process has ended: over, paused, or to be gone on with."""
        record = self._jobs.documents.find(id)
        if record.final or record.paused:
            return record
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        log.warning("the process of %s ended: %s", id, how)
        deaths = record.deaths + (1 if code < 0 else _FAULT)
        if deaths >= _DEATHS:
            message = f"its process ended again and again without saving anything ({how}); its log says more"
            return self._jobs.fail(id, "worker_died", message)
        key = f"died/{record.step}/{deaths}"
        message = f"The job's process ended ({how}); another goes on from step {record.step}"
        return self._jobs.advance(id, key, message, level="warn", deaths=deaths)

    def _rested(self, id: str) -> None:
        self._resting.discard(id)
        self._changed.set()

    def _terminate(self, id: str) -> None:
        process = self._processes.get(id)
        if process is not None and process.returncode is None:
            process.terminate()
        self._changed.set()

    async def _end(self) -> None:
        watching = list(self._watching)
        for task in watching:
            task.cancel()
        processes = list(self._processes.values())
        for process in processes:
            if process.returncode is None:
                process.terminate()
        for process in processes:
            try:
                await asyncio.wait_for(process.wait(), _LAST_WORDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        await asyncio.gather(*watching, return_exceptions=True)
