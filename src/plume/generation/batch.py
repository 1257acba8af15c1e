"""Continuous batching: requests join and leave at token boundaries, and none changes another's answer.

A step reads a stretch of waiting prompts, if there is room for them, and then decodes one token of every running
answer. Shape suffixes: B batch, T time, C width, V vocabulary.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from plume.errors import PlumeError, UserError
from plume.generation.beams import beam_search
from plume.generation.lookup import prompt_lookup
from plume.generation.prefix import PrefixCache
from plume.generation.reply import Reply, Request, limit
from plume.generation.scoring import padded
from plume.generation.settings import check_constrained, check_for
from plume.models.bundle import Bundle
from plume.types import Chunk, Sampling, State

_READ = 512  # tokens of prompts read between two tokens of running answers
_READ_IDLE = 4096  # where no answer waits for them


@dataclass(slots=True)
class _Prompt:
    """A prompt being read: `known` of the ids of its replies are in `state` already, `found` of them kept from
    an earlier one."""

    number: int
    replies: list[Reply]
    known: int = 0
    found: int = 0
    state: State | None = None

    @property
    def unread(self) -> list[int]:
        return self.replies[0].read[self.known :]

    @property
    def scope(self) -> str:
        return self.replies[0].request.scope


@dataclass(slots=True)
class _Ticket:
    """A request that was accepted: how many answers of it are not over, and how long each may become."""

    request: Request
    rows: int
    tokens: int
    over: list[Reply] = field(default_factory=list)


Event = tuple[int, Chunk | PlumeError]


class Batch:
    """Every request that one model is answering. Not thread-safe: one caller at a time.

    `rows` answers run together; `cache_nbytes` bounds what their states may come to hold, and a request is begun only
    when all that run could grow to their limits within it. `prefix_nbytes` bounds what is kept of earlier prompts.
    """

    def __init__(self, bundle: Bundle, *, rows: int, cache_nbytes: int, prefix_nbytes: int) -> None:
        self._bundle, self._model = bundle, bundle.model
        self._device = next(bundle.model.parameters()).device
        self._rows, self._cache_nbytes = rows, cache_nbytes
        self._prefixes = PrefixCache(prefix_nbytes)
        self._numbers = count(1)
        self._waiting: OrderedDict[int, _Ticket] = OrderedDict()
        self._begun: dict[int, _Ticket] = {}
        self._reading: list[_Prompt] = []
        self._running: list[tuple[int, Reply]] = []
        self._state: State | None = None
        self._alone: dict[int, Iterator[Chunk | None]] = {}
        self.begun: list[int] = []  # the requests that the last step began
        self.found: dict[int, int] = {}  # tokens of the prompts it has read that were known from earlier ones
        self.prefix_queries = self.prefix_hits = 0  # tokens of prompts, and those found among earlier prompts

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._waiting or ticket in self._begun

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Answers that are on their way, and what is searched with beams."""
        return sum(ticket.rows for ticket in self._begun.values())

    @property
    def nbytes(self) -> int:
        """What the states of running answers and kept prompts hold."""
        states = [self._state, *(prompt.state for prompt in self._reading)]
        return self._prefixes.nbytes + sum(state.nbytes for state in states if state is not None)

    def submit(self, request: Request) -> int:
        """Accept a request; its chunks come under the number returned. Raises UserError when it cannot be answered."""
        sampling = request.sampling
        most = limit(request, self._bundle)
        check_for(sampling, self._model.vocab_size)
        _check(request, most, self._model.context_length)
        name, rows = max(_rows(sampling).items(), key=lambda pair: pair[1])
        if rows > self._rows:
            raise UserError(
                f"{name}={rows}: at most {self._rows} answers are decoded together",
                f"set {name} to at most {self._rows}",
            )
        ticket = _Ticket(request, rows, min(len(request.ids) + most, self._model.context_length))
        if not self._holds([ticket]):
            need = rows * self._model.state_nbytes(ticket.tokens)
            raise UserError(
                f"{rows} answers of up to {ticket.tokens} tokens need {need / 2**20:,.1f} MiB for what the model "
                f"remembers; {self._cache_nbytes / 2**20:,.1f} MiB are allowed",
                "ask for fewer at once, or set a smaller max_new_tokens",
            )
        number = next(self._numbers)
        self._waiting[number] = ticket
        return number

    def cancel(self, number: int) -> None:
        """Forget a request; its rows are free at once. One that is over already is no error."""
        self._waiting.pop(number, None)
        self._begun.pop(number, None)
        self._alone.pop(number, None)
        self._reading = [prompt for prompt in self._reading if prompt.number != number]
        self._leave([position for position, (owner, _) in enumerate(self._running) if owner == number])

    def forget_prompts(self, before: float) -> None:
        """Drop what is kept of prompts that were read before this time (of `time.monotonic`)."""
        self._prefixes.forget(before)

    def step(self) -> list[Event]:
        """One token of every running answer; an error is the last that comes of a request.

        When the model itself fails (no memory, say), that is raised and every request is dropped.
        """
        if self._model.training:
            self._model.train(False)
        try:
            with torch.inference_mode():
                self._admit()
                events = [*self._read(), *self._decode(), *self._step_alone()]
        except BaseException:
            for number in (*self._waiting, *self._begun):
                self.cancel(number)
            raise
        for number, event in events:
            if isinstance(event, PlumeError):
                self.cancel(number)
        return events

    def _holds(self, tickets: Sequence[_Ticket]) -> bool:
        """Whether all of these could run together, each grown to its limit."""
        rows = sum(ticket.rows for ticket in tickets)
        longest = max(ticket.tokens for ticket in tickets)
        return rows <= self._rows and rows * self._model.state_nbytes(longest) <= self._cache_nbytes

    def _admit(self) -> None:
        """Begin what has waited longest; a few places that come free of a full batch are worth no reading yet."""
        self.begun.clear()
        free = self._rows - self.running
        if self.running and free < min(len(self._waiting), self._rows // 8):
            return
        while self._waiting and self._holds([*self._begun.values(), next(iter(self._waiting.values()))]):
            number, ticket = self._waiting.popitem(last=False)
            self._begun[number] = ticket
            self.begun.append(number)
            self._begin(number, ticket)

    def _begin(self, number: int, ticket: _Ticket) -> None:
        sampling = ticket.request.sampling
        if sampling.num_beams > 1:
            self._alone[number] = beam_search(self._bundle, ticket.request)
        elif sampling.prompt_lookup_num_tokens:
            self._alone[number] = prompt_lookup(self._bundle, ticket.request)
        else:
            replies = [Reply(self._bundle, ticket.request, choice) for choice in range(ticket.rows)]
            self._reading.append(_Prompt(number, replies))

    # --- prompts ---

    def _read(self) -> list[Event]:
        """Read some prompts to their end, or a stretch of a long one; their first tokens come of it."""
        self.found = {}
        if not self._reading:
            return []
        for prompt in self._reading:
            if prompt.known == 0:
                prompt.known, prompt.state = self._prefixes.find(prompt.scope, prompt.unread)
                prompt.found = prompt.known
        most = _READ if self._running else _READ_IDLE
        group = _together(self._reading, most)
        stretches = [prompt.unread[:most] for prompt in group]
        lengths_B = torch.tensor([len(stretch) for stretch in stretches], device=self._device)
        state = _joined([prompt.state for prompt in group])
        hidden_BTC, state = self._model(padded(stretches, self._bundle, self._device), state, lengths_B)
        for prompt, stretch in zip(group, stretches, strict=True):
            prompt.known += len(stretch)
        if group[0].unread:
            group[0].state = state
            return []
        self._reading = self._reading[len(group) :]
        self.prefix_queries += sum(prompt.known for prompt in group)
        self.prefix_hits += sum(prompt.found for prompt in group)
        self.found = {prompt.number: prompt.found for prompt in group if not prompt.replies[0].chunks}
        self._remember(group, state)
        rows_B = torch.arange(len(group), device=self._device)
        return self._first(group, self._model.head(hidden_BTC[rows_B, lengths_B - 1]), state)

    def _remember(self, group: Sequence[_Prompt], state: State) -> None:
        """Keep the first prompt that is news; those read beside it are often questions to the same persona."""
        for row, prompt in enumerate(group):
            ids = prompt.replies[0].read
            if self._prefixes.wants(prompt.scope, ids):
                self._prefixes.keep(prompt.scope, ids, state.fork().select(torch.tensor([row], device=self._device)))
                return

    def _first(self, group: Sequence[_Prompt], logits_BV: Tensor, state: State) -> list[Event]:
        """The first token of every answer; those that go on join the others."""
        sources = [row for row, prompt in enumerate(group) for _ in prompt.replies]
        answers = [(prompt.number, reply) for prompt in group for reply in prompt.replies]
        events, going = self._choose(answers, logits_BV[sources] if len(sources) > len(group) else logits_BV)
        rows = [sources[position] for position in going]
        if rows:
            if rows != list(range(len(group))):
                state = state.select(torch.tensor(rows, device=self._device))
            self._state = state if self._state is None else self._state.join(state)
            self._running += [answers[position] for position in going]
        return events

    # --- answers ---

    def _decode(self) -> list[Event]:
        if not self._running:
            return []
        ids_B1 = torch.tensor([[reply.read[-1]] for _, reply in self._running], device=self._device)
        hidden_B1C, self._state = self._model(ids_B1, self._state)
        events, going = self._choose(self._running, self._model.head(hidden_B1C[:, -1]))
        if len(going) < len(self._running):
            gone = set(range(len(self._running))) - set(going)
            self._leave(sorted(gone))
        return events

    def _choose(self, answers: Sequence[tuple[int, Reply]], logits_BV: Tensor) -> tuple[list[Event], list[int]]:
        """The next token of each answer, and the positions of those that go on behind it."""
        highest_B, likeliest_B = _likeliest(logits_BV)
        events: list[Event] = []
        going = []
        for position, (number, reply) in enumerate(answers):
            try:
                if reply.plain and math.isfinite(highest_B[position]):
                    chunk = reply.push(likeliest_B[position])
                else:
                    chunk = reply.take(logits_BV[position].cpu())
            except PlumeError as error:
                events.append((number, error))
                continue
            events += self._out(number, reply, chunk)
            if reply.finish is None:
                if reply.slide():
                    self._reading.append(_Prompt(number, [reply]))
                else:
                    going.append(position)
        return events, going

    def _out(self, number: int, reply: Reply, chunk: Chunk) -> list[Event]:
        """What leaves: each chunk as it comes or, of the best of several, the whole answers when all are over."""
        ticket = self._begun[number]
        if reply.finish is None:
            return [] if reply.ranked else [(number, chunk)]
        ticket.rows -= 1
        ticket.over.append(reply)
        if ticket.rows == 0:
            del self._begun[number]
        if not reply.ranked:
            return [(number, chunk)]
        if ticket.rows:
            return []
        ranked = sorted(ticket.over, key=lambda one: (-one.mean_logprob, one.choice))[: ticket.request.sampling.n]
        return [(number, one.whole(choice)) for choice, one in enumerate(ranked)]

    @torch.inference_mode()
    def _leave(self, gone: Sequence[int]) -> None:
        """Take rows out; the last rows fill the holes, so that few of them move."""
        if not gone or self._state is None:
            return
        rows = list(range(len(self._running)))
        for position in reversed(gone):
            last = rows.pop()
            if position < len(rows):
                rows[position] = last
        self._running = [self._running[row] for row in rows]
        self._state = self._state.select(torch.tensor(rows, device=self._device)) if rows else None

    def _step_alone(self) -> list[Event]:
        """One step of every search that keeps its own state."""
        events: list[Event] = []
        for number, search in list(self._alone.items()):
            try:
                chunk = next(search)
            except StopIteration:
                del self._alone[number], self._begun[number]
            except PlumeError as error:
                events.append((number, error))
            else:
                events += [(number, chunk)] if chunk else []
        return events


def _likeliest(logits_BV: Tensor) -> tuple[list[float], list[int]]:
    """The highest of each row, and where it stands: NumPy takes a tenth of the time that torch does."""
    if logits_BV.device.type != "cpu":
        highest_B, likeliest_B = logits_BV.max(dim=-1)
        return highest_B.tolist(), likeliest_B.tolist()
    rows_BV = logits_BV.float().numpy()
    places_B = rows_BV.argmax(axis=1)
    return rows_BV[range(len(rows_BV)), places_B].tolist(), places_B.tolist()


def _rows(sampling: Sampling) -> dict[str, int]:
    """The settings that ask for answers beside one another, with how many."""
    return {"n": sampling.n, "best_of": sampling.best_of or 1, "num_beams": sampling.num_beams}


def _together(prompts: Sequence[_Prompt], most: int) -> Sequence[_Prompt]:
    """The first prompts that can be read to their end in one call of at most `most` tokens, padding included; the
    first alone, if it is longer."""
    longest, together = 0, 0
    for number, prompt in enumerate(prompts, 1):
        longest = max(longest, len(prompt.unread))
        if number * longest > most or (prompt.state is None) != (prompts[0].state is None):
            break
        together = number
    return prompts[: max(1, together)]


def _joined(states: Sequence[State | None]) -> State | None:
    whole = states[0]
    for state in states[1:]:
        whole = whole.join(state) if whole is not None else None
    return whole


def _check(request: Request, most: int, context: int) -> None:
    if not request.ids:
        raise UserError("the prompt is empty: there is nothing to continue", "give some text")
    if most < 1:
        raise UserError(
            f"the prompt has {len(request.ids)} tokens; the model's context of {context} must hold the answer too",
            "shorten it, or use a model with a longer context",
        )
    if request.grammar:
        check_constrained(request.sampling)
        shortest = request.grammar.shortest
        if shortest > most:
            raise UserError(
                f"the shortest answer that satisfies the constraint has {shortest} tokens; at most {most} are allowed",
                f"set max_new_tokens to {shortest} or more"
                if most == request.sampling.max_new_tokens
                else "shorten the prompt, or use a model with a longer context",
            )
