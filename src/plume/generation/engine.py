"""One engine decodes and scores for every command: prompts in as ids, text out in final pieces."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plume.errors import PlumeError, UserError
from plume.generation import scoring
from plume.generation.batch import Batch
from plume.generation.reply import Request
from plume.generation.settings import check
from plume.models.bundle import Bundle
from plume.models.memory import free
from plume.types import Answer, Chunk, Encoded, Grammar, Message, Sampling, Score

_ROWS = 64
_CACHE_SHARE = 0.5  # of the memory that is free when the engine is made
_UNKNOWN = 2**31  # bytes taken for free where the system does not say


class Engine:
    """Asks one bundle, for any number of threads at once: whoever waits for a token decodes the next ones of all.

    Greedy answers and seeded samples do not depend on what else is asked meanwhile. `rows` answers run together, and
    `cache_nbytes` bounds what the model remembers of them; a quarter as much again is kept of earlier prompts.
    """

    def __init__(self, bundle: Bundle, *, rows: int = _ROWS, cache_nbytes: int | None = None) -> None:
        self.bundle = bundle
        nbytes = int(_CACHE_SHARE * (free() or _UNKNOWN)) if cache_nbytes is None else cache_nbytes
        self._batch = Batch(bundle, rows=rows, cache_nbytes=nbytes, prefix_nbytes=nbytes // 4)
        self._lock = threading.RLock()  # a stream may be collected, and so closed, in the middle of a step
        self._stepping = False
        self._closed: list[int] = []
        self._arrived: dict[int, deque[Chunk | PlumeError]] = {}

    @property
    def running(self) -> int:
        """Answers that are being decoded."""
        return self._batch.running

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """The ids that ask for a reply, which may call `tools` (in OpenAI's form). Raises UserError when they fill the
        model's context, are no text, or the model's template knows no calls."""
        for message in messages:
            check_text(message.content)
        ids = self.bundle.template.encode(messages, self.bundle.tokenizer, tools, reply=True).ids
        context = self.bundle.model.context_length
        if len(ids) >= context:
            raise UserError(
                f"the question has {len(ids)} tokens; the model's context of {context} must hold the answer too",
                "shorten it, or train with a larger max_length",
            )
        return ids

    def stream(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        *,
        reply: bool = True,
        grammar: Grammar | None = None,
        scope: str = "",
    ) -> Generator[Chunk]:
        """Decode one prompt; closing the iterator cancels. With `n` answers their chunks come as they are ready.

        Without `reply` the text continues the prompt, and beyond the context it goes on from the latest half of it.
        Nothing that was read in one `scope` makes another faster. Raises UserError when the request cannot be answered,
        PlumeError when the model's output is not a number.
        """
        ticket = self._submit(Request(tuple(ids), sampling, grammar, reply, scope))
        try:
            while (chunk := self._next(ticket)) is not None:
                yield chunk
        finally:
            self._cancel(ticket)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, grammar: Grammar | None = None
    ) -> list[Answer]:
        """Answers to several prompts, `n` to each, in order. Sampled ones count their seeds on from `sampling.seed`."""
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        tickets: dict[int, int] = {}
        answers: dict[int, list[Answer]] = {}
        try:
            for index in order:
                own = replace(sampling, seed=sampling.seed + index * (sampling.best_of or sampling.n))
                tickets[index] = self._submit(Request(tuple(prompts[index]), own, grammar))
            for index in order:
                answers[index] = _collected(self._rest(tickets[index]), sampling.n)
        finally:
            for ticket in tickets.values():
                self._cancel(ticket)
        return [answer for index in range(len(prompts)) for answer in answers[index]]

    def score(self, rows: Sequence[Encoded]) -> list[Score]:
        """Likelihood of the trained tokens of each row. Rows longer than the context are read in windows."""
        return scoring.score(self.bundle, rows)

    def _submit(self, request: Request) -> int:
        check(request.sampling)
        _check_ids(request.ids, self.bundle.model.vocab_size)
        with self._lock:
            ticket = self._batch.submit(request)
            self._arrived[ticket] = deque()
        return ticket

    def _next(self, ticket: int) -> Chunk | None:
        """The ticket's next chunk, None when it is over; where none has arrived, the next tokens of all are decoded."""
        while True:
            with self._lock:
                if arrived := self._arrived[ticket]:
                    event = arrived.popleft()
                    break
                if ticket not in self._batch:
                    return None
                self._step()
        if isinstance(event, PlumeError):
            raise event
        return event

    def _step(self) -> None:
        going = [ticket for ticket in self._arrived if ticket in self._batch]
        self._stepping = True
        try:
            events = self._batch.step()
        except BaseException as error:
            for ticket in going:
                self._arrived[ticket].append(PlumeError(f"the model failed while it answered: {error}"))
            raise
        else:
            for ticket, event in events:
                self._arrived[ticket].append(event)
        finally:
            self._stepping = False
            while self._closed:
                self._cancel(self._closed.pop())

    def _rest(self, ticket: int) -> Iterator[Chunk]:
        while (chunk := self._next(ticket)) is not None:
            yield chunk

    def _cancel(self, ticket: int) -> None:
        with self._lock:
            if self._stepping:
                self._closed.append(ticket)
                return
            self._batch.cancel(ticket)
            self._arrived.pop(ticket, None)


def _collected(chunks: Iterator[Chunk], n: int) -> list[Answer]:
    pieces: list[list[Chunk]] = [[] for _ in range(n)]
    for chunk in chunks:
        pieces[chunk.choice].append(chunk)
    return [
        Answer(
            "".join(chunk.text for chunk in said),
            tuple(id for chunk in said for id in chunk.ids),
            said[-1].finish or "length",
            tuple(one for chunk in said for one in chunk.logprobs),
        )
        for said in pieces
    ]


def _check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raise UserError for ids that the model has no embedding for: its failure would end everybody's answer."""
    for id in (min(ids, default=0), max(ids, default=0)):
        if id not in range(vocab_size):
            raise UserError(
                f"the prompt: there is no token {id}; the vocabulary has {vocab_size}, from 0 to {vocab_size - 1}",
                "ids belong to one tokenizer: encode the prompt with this model's",
            )


def check_text(text: str) -> None:
    """Raise UserError for bytes that the terminal's encoding could not read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start + 1} of the text is not valid UTF-8", "use a UTF-8 terminal (LC_ALL=C.UTF-8)"
        ) from None
