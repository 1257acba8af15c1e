"""One thread drives one model's batch; requests come from the event loop and their chunks go back to it."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from plume.errors import PlumeError
from plume.generation.batch import Batch
from plume.generation.reply import Request
from plume.models.bundle import Bundle
from plume.models.prepacked import threads_for
from plume.types import Chunk

log = logging.getLogger("plume.serving")
T = TypeVar("T")


class Overloaded(Exception):
    """As many requests wait as may; `seconds` is when some are likely to have gone."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.1f} seconds")
        self.seconds = seconds


class TimedOut(PlumeError):
    """An answer took longer than answers may."""


class Ticket:
    """Requests that were handed in together: iterating gives `(which request, chunk)` as they come, leaving the
    context cancels what is still to come. Of a `whole` one each answer comes as one chunk, when its request is over:
    the event loop then has nothing to do for a token. Times are of `time.monotonic`. Belongs to the event loop."""

    def __init__(self, worker: Worker, requests: Sequence[Request], seconds: float, *, whole: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self._worker = worker
        self._arrived: asyncio.Queue[tuple[int, Chunk] | Exception] = asyncio.Queue()
        self._left = len(requests)
        self._due = loop.call_later(seconds, self.fail, TimedOut(f"the answer took more than {seconds:g} seconds"))
        self.accepted: asyncio.Future[None] = loop.create_future()
        self.answers = sum(_answers(request) for request in requests)
        self.whole = whole
        self.submitted = time.monotonic()
        self.begun: float | None = None  # this and the next are set by the thread, before the first chunk
        self.cached = 0  # tokens of the prompts that were known from earlier ones
        self.first: float | None = None  # from here on by the thread where the ticket is `whole`
        self.last: float | None = None
        self.written = 0
        self.gaps: list[float] = []  # seconds between two chunks of an answer
        self._spoke: dict[tuple[int, int], float] = {}

    def put(self, which: int, event: Chunk | Exception | None) -> None:
        """What the thread sends: a chunk, the failure of all, or None where one request is over."""
        if event is None:
            self._left -= 1
            if self._left == 0:
                self._arrived.put_nowait(StopAsyncIteration())
        elif isinstance(event, Exception):
            self.fail(event)
        else:
            self._arrived.put_nowait((which, event))

    def fail(self, error: Exception) -> None:
        """Let the next iteration raise this."""
        if self.accepted.done():
            self._arrived.put_nowait(error)
        else:
            self.accepted.set_exception(error)

    def __aiter__(self) -> AsyncIterator[tuple[int, Chunk]]:
        return self

    async def __anext__(self) -> tuple[int, Chunk]:
        event = await self._arrived.get()
        if isinstance(event, Exception):
            raise event
        if not self.whole:
            self.note(*event, time.monotonic())
        return event

    def note(self, which: int, chunk: Chunk, now: float) -> None:
        """Count what has come."""
        self.last = now
        self.first = self.first or now
        self.written += len(chunk.ids)
        answer = which, chunk.choice
        if answer in self._spoke:
            self.gaps.append(now - self._spoke[answer])
        self._spoke[answer] = now

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is not over; its rows are free before the next token."""
        self._due.cancel()
        self._worker.forget(self)


class Worker:
    """Answers for one model. Everything but the thread's own methods is called from the event loop.

    The thread runs while there is work and a while longer, and ends for good after `retire` once nothing is left.
    """

    def __init__(self, bundle: Bundle, *, rows: int, queue: int, cache_nbytes: int, prefix_nbytes: int) -> None:
        self._batch = Batch(bundle, rows=rows, cache_nbytes=cache_nbytes, prefix_nbytes=prefix_nbytes)
        self.capacity_nbytes = cache_nbytes + prefix_nbytes
        self._rows, self._most = rows, rows + queue
        self._threads = threads_for(bundle.model)
        self._wake = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._retired = False
        self._loop = asyncio.get_running_loop()
        self._open: set[Ticket] = set()
        self._outstanding = 0
        self._seconds = 1.0  # that an answer takes, lately
        # the thread's own:
        self._owners: dict[int, tuple[Ticket, int]] = {}
        self._numbers: dict[Ticket, list[int]] = {}
        self._held: dict[int, list[Chunk]] = {}

    # --- the event loop's side ---

    @property
    def outstanding(self) -> int:
        """Answers that were asked for and are not over."""
        return self._outstanding

    @property
    def running(self) -> int:
        return self._batch.running

    @property
    def waiting(self) -> int:
        return max(0, self._outstanding - self._batch.running)

    @property
    def nbytes(self) -> int:
        """What the states of running answers and kept prompts hold."""
        return self._batch.nbytes

    @property
    def prefix_queries(self) -> int:
        """Tokens of prompts that were looked for among those kept."""
        return self._batch.prefix_queries

    @property
    def prefix_hits(self) -> int:
        return self._batch.prefix_hits

    async def submit(self, requests: Sequence[Request], seconds: float, *, whole: bool = False) -> Ticket:
        """Hand in requests that may take so long. Raises Overloaded when the queue is full, UserError when one cannot
        be answered."""
        ticket = Ticket(self, requests, seconds, whole=whole)
        try:
            self._reserve(ticket.answers)
            self._open.add(ticket)
            self._post(partial(self._accept, ticket, tuple(requests)))
            await ticket.accepted
        except BaseException:
            ticket.close()
            raise
        return ticket

    async def run(self, work: Callable[[], T]) -> T:
        """Something else that needs the model, done between two tokens. Raises what it raises, or Overloaded."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._reserve(1)
        try:
            self._post(partial(self._work, work, done))
            return await done
        finally:
            self._outstanding -= 1

    def forget_prompts(self, before: float) -> None:
        """Drop what is kept of prompts that were read before this time, between two tokens."""
        self._post(partial(self._batch.forget_prompts, before))

    def forget(self, ticket: Ticket) -> None:
        """Cancel a ticket; one that is over already is no error."""
        if ticket not in self._open:
            return
        self._open.discard(ticket)
        self._outstanding -= ticket.answers
        if ticket.first is not None:
            self._seconds += 0.1 * (time.monotonic() - ticket.submitted - self._seconds)
        self._post(partial(self._cancel, ticket))

    def abort(self, error: Exception) -> None:
        """End every ticket with an error."""
        for ticket in list(self._open):
            ticket.fail(error)
            ticket.close()

    def retire(self) -> None:
        """No more work is expected: the thread ends when it has nothing to do."""
        with self._wake:
            self._retired = True
            self._wake.notify()

    def join(self, seconds: float) -> None:
        """Wait for the thread of a worker that was retired."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _reserve(self, answers: int) -> None:
        if self._outstanding and self._outstanding + answers > self._most:
            rounds = math.ceil((self._outstanding - self._rows + 1) / self._rows)
            raise Overloaded(min(60.0, max(0.5, rounds * self._seconds)))
        self._outstanding += answers

    def _post(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._commands.append(command)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="plume-model", daemon=True)
                self._thread.start()
            self._wake.notify()

    # --- the thread's side ---

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while True:
            with self._wake:
                while not self._commands and not self._owners:
                    if self._retired:
                        self._thread = None
                        return
                    self._wake.wait()
                commands = list(self._commands)
                self._commands.clear()
            for command in commands:
                command()
            if self._owners:
                self._step()

    def _accept(self, ticket: Ticket, requests: Sequence[Request]) -> None:
        numbers = self._numbers.setdefault(ticket, [])
        try:
            for which, request in enumerate(requests):
                number = self._batch.submit(request)
                numbers.append(number)
                self._owners[number] = (ticket, which)
        except Exception as error:
            self._cancel(ticket)
            self._send([(ticket, 0, error)])
        else:
            self._call(_accepted, ticket)

    def _cancel(self, ticket: Ticket) -> None:
        for number in self._numbers.pop(ticket, ()):
            self._owners.pop(number, None)
            self._held.pop(number, None)
            self._batch.cancel(number)

    def _work(self, work: Callable[[], T], done: asyncio.Future[T]) -> None:
        if done.cancelled():
            return
        try:
            result = work()
        except Exception as error:
            self._call(_settle, done, None, error)
        else:
            self._call(_settle, done, result, None)

    def _step(self) -> None:
        began = time.monotonic()
        try:
            events = self._batch.step()
        except Exception as error:
            log.exception("the model failed")
            failure = PlumeError(f"the model failed while it answered: {type(error).__name__}")
            self._send([(ticket, 0, failure) for ticket in self._numbers])
            self._owners.clear()
            self._numbers.clear()
            self._held.clear()
            return
        for number in self._batch.begun:
            ticket, _ = self._owners[number]
            ticket.begun = ticket.begun or began
        for number, known in self._batch.found.items():
            self._owners[number][0].cached += known
        sent: list[tuple[Ticket, int, Chunk | Exception | None]] = []
        now = time.monotonic()
        for number, event in events:
            if number not in self._owners:
                continue
            ticket, which = self._owners[number]
            if ticket.whole and isinstance(event, Chunk):
                ticket.note(which, event, now)
                self._held.setdefault(number, []).append(event)
            else:
                sent.append((ticket, which, event))
        for number in [number for number in self._owners if number not in self._batch]:
            ticket, which = self._owners.pop(number)
            sent += [(ticket, which, chunk) for chunk in _whole(self._held.pop(number, ()))]
            sent.append((ticket, which, None))
        self._send(sent)

    def _send(self, events: Sequence[tuple[Ticket, int, Chunk | Exception | None]]) -> None:
        if events:
            self._call(_deliver, events)

    def _call(self, function: Callable[..., None], *values: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *values)


def _answers(request: Request) -> int:
    return request.sampling.best_of or request.sampling.n


def _whole(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """Each answer in one piece."""
    for choice in dict.fromkeys(chunk.choice for chunk in chunks):
        said = [chunk for chunk in chunks if chunk.choice == choice]
        yield Chunk(
            "".join(chunk.text for chunk in said),
            tuple(id for chunk in said for id in chunk.ids),
            said[-1].finish,
            tuple(one for chunk in said for one in chunk.logprobs),
            choice,
        )


def _accepted(ticket: Ticket) -> None:
    if not ticket.accepted.done():
        ticket.accepted.set_result(None)


def _deliver(events: Sequence[tuple[Ticket, int, Chunk | Exception | None]]) -> None:
    for ticket, which, event in events:
        ticket.put(which, event)


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.cancelled():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
