"""An answer on its way to the client, one piece after another: text, or the call of a tool.

Completions, chat and whatever else speaks render the same pieces, whole or as a stream.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from plume.generation.reply import Request
from plume.models.bundle import Bundle
from plume.serving import record
from plume.serving.answers import submit
from plume.serving.models import Loaded
from plume.serving.service import Service
from plume.serving.worker import Ticket
from plume.types import Chunk, FinishReason, Grammar, TokenLogprob

Finish = Literal["stop", "length", "tool_calls"]
HandIn = Callable[[Sequence[Request]], Awaitable[Ticket]]


@dataclass(frozen=True, slots=True)
class CallPiece:
    """Part of a call: `id` and `name` stand on its first piece alone."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of the answer number `choice`; `tokens` were written for it."""

    choice: int
    text: str = ""
    call: CallPiece | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Calling:
    """How a call is written: after `begin`, as an object with the arguments under `key`, which `grammar` allows.

    When it `must` come, it is all there is; else the model writes text, and calls by writing `begin`.
    """

    grammar: Grammar
    begin: str
    key: str
    must: bool
    finish: Finish = "tool_calls"


async def said(
    service: Service,
    loaded: Loaded,
    requests: Sequence[Request],
    calling: Calling | None = None,
    *,
    whole: bool = False,
) -> AsyncGenerator[Piece, None]:
    """Everything that is answered to some prompts, choices counted through them. The first piece is empty and comes as
    soon as the model's queue has taken them; what nobody streams is asked for `whole`. Raises ApiError, PlumeError."""
    hand_in = partial(submit, service, loaded, whole=whole)
    if calling is None:
        pieces = _texts(hand_in, requests)
    elif calling.must:
        pieces = _calls(hand_in, requests, calling, [0] * len(requests))
    else:
        pieces = _either(hand_in, requests, calling, loaded.bundle)
    watched = _watched(service, loaded, requests, pieces)
    try:
        async for piece in watched:
            yield piece
    finally:
        await watched.aclose()
        await pieces.aclose()


async def _watched(
    service: Service, loaded: Loaded, requests: Sequence[Request], pieces: AsyncGenerator[Piece, None]
) -> AsyncGenerator[Piece, None]:
    """The pieces, counted and timed."""
    seen = record.current()
    seen.model, seen.sampling = loaded.entry.id, requests[0].sampling
    seen.prompt_tokens = sum(len(request.ids) for request in requests)
    seen.finishes = dict.fromkeys(range(len(requests) * seen.sampling.n), "abort")
    try:
        async for piece in pieces:
            if piece.finish:
                seen.finishes[piece.choice] = piece.finish
            yield piece
    finally:
        service.metrics.answered(seen)


async def _texts(hand_in: HandIn, requests: Sequence[Request]) -> AsyncGenerator[Piece, None]:
    n = requests[0].sampling.n
    async with await hand_in(requests) as ticket:
        yield Piece(0)
        async for which, chunk in ticket:
            yield Piece(which * n + chunk.choice, chunk.text, None, chunk.logprobs, _finish(chunk), len(chunk.ids))


async def _calls(
    hand_in: HandIn, requests: Sequence[Request], calling: Calling, choices: Sequence[int]
) -> AsyncGenerator[Piece, None]:
    """Calls as they are written; request number r is for the choices from `choices[r]` on."""
    readers: dict[int, CallReader] = {}
    async with await hand_in(requests) as ticket:
        yield Piece(choices[0])
        async for which, chunk in ticket:
            choice = choices[which] + chunk.choice
            reader = readers.setdefault(choice, CallReader(calling.key))
            finish = calling.finish if chunk.finish == "stop" else _finish(chunk)
            call = reader.push(chunk.text)
            yield Piece(choice, "", call, (), finish, len(chunk.ids))


async def _either(
    hand_in: HandIn, requests: Sequence[Request], calling: Calling, bundle: Bundle
) -> AsyncGenerator[Piece, None]:
    """Text until the model begins a call, then that call, its arguments under their schema."""
    mark = calling.begin.strip()
    begun: list[tuple[int, Request]] = []
    alone = [
        replace(one, sampling=replace(one.sampling, n=1, seed=one.sampling.seed + choice))
        for one in requests
        for choice in range(one.sampling.n)
    ]
    marked = [replace(one, sampling=replace(one.sampling, stop=(*one.sampling.stop, mark))) for one in alone]
    texts = [_Text() for _ in alone]
    async with await hand_in(marked) as ticket:
        yield Piece(0)
        async for choice, chunk in ticket:
            text = texts[choice].push(chunk)
            if chunk.finish == "stop" and texts[choice].stopped_at(mark, bundle):
                following = _following(alone[choice], texts[choice], calling, bundle)
                if following is not None:
                    begun.append((choice, following))
                yield Piece(choice, text, None, (), None if following else "length", len(chunk.ids))
            else:
                held = texts[choice].rest() if chunk.finish else ""
                yield Piece(choice, text + held, None, chunk.logprobs, _finish(chunk), len(chunk.ids))
    if begun:
        calls = _calls(hand_in, [request for _, request in begun], calling, [choice for choice, _ in begun])
        try:
            async for piece in calls:
                yield piece
        finally:
            await calls.aclose()


class _Text:
    """What one answer has said before it may begin a call; blanks are held back, for they may belong to the call."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._text = ""
        self._told = 0

    def push(self, chunk: Chunk) -> str:
        self._ids += chunk.ids
        self._text += chunk.text
        certain = len(self._text.rstrip())
        told, self._told = self._told, max(self._told, certain)
        return self._text[told : self._told]

    def rest(self) -> str:
        return self._text[self._told :]

    def stopped_at(self, mark: str, bundle: Bundle) -> bool:
        """Whether it was the mark that ended it, and not the end token or another stop text."""
        return bundle.tokenizer.decode(self._ids).startswith(self._text + mark)

    @property
    def said(self) -> str:
        return self._text

    @property
    def tokens(self) -> int:
        return len(self._ids)


def _following(request: Request, text: _Text, calling: Calling, bundle: Bundle) -> Request | None:
    """The request for the call itself, or None where there is no room left for one."""
    ids = (*request.ids, *bundle.tokenizer.encode(text.said + calling.begin.lstrip()))
    room = min(request.sampling.max_new_tokens - text.tokens, bundle.model.context_length - len(ids))
    if calling.grammar.shortest > room:
        return None
    sampling = replace(request.sampling, max_new_tokens=room, stop=(), logprobs=None)
    return replace(request, ids=ids, sampling=sampling, grammar=calling.grammar)


class CallReader:
    """The text of a call, as it comes, split into its name and its arguments."""

    def __init__(self, key: str) -> None:
        self._head = re.compile(rf'\s*\{{\s*"name"\s*:\s*"([a-zA-Z0-9_-]+)"\s*,\s*"{key}"\s*:\s*(?=\{{)')
        self._held = ""
        self._named = False
        self._depth = 0
        self._quoted = self._escaped = self._over = False

    def push(self, text: str) -> CallPiece | None:
        """What is new, if anything."""
        if self._named:
            arguments = self._take(text)
            return CallPiece(0, arguments) if arguments else None
        self._held += text
        head = self._head.match(self._held)
        if head is None:
            return None
        self._named = True
        return CallPiece(0, self._take(self._held[head.end() :]), f"call_{secrets.token_hex(12)}", head[1])

    def _take(self, text: str) -> str:
        """As much as belongs to the object of arguments."""
        for place, character in enumerate(text):
            if self._over:
                return text[:place]
            if self._quoted:
                self._quoted = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._quoted = True
            elif character in "{}[]":
                self._depth += 1 if character in "{[" else -1
                self._over = self._depth == 0
        return text


def _finish(chunk: Chunk) -> Finish | None:
    finish: FinishReason | None = chunk.finish
    return None if finish is None else "stop" if finish == "stop" else "length"
