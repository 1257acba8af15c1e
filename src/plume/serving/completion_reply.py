"""A completion from its pieces: whole, or as parts of a stream."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from openai.types import Completion, CompletionChoice, CompletionUsage
from openai.types.completion_choice import Logprobs

from plume.serving import sse
from plume.serving.models import Loaded
from plume.serving.said import Piece
from plume.serving.token_texts import TokenTexts
from plume.types import TokenLogprob

_UTF8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, as text and as the ids the model reads."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of an answer repeats."""

    id: str
    created: int
    model: str
    fingerprint: str
    texts: TokenTexts

    @classmethod
    def new(cls, model: str, loaded: Loaded) -> Head:
        id = f"cmpl-{secrets.token_hex(14)}"
        return cls(id, int(time.time()), model, loaded.fingerprint, TokenTexts(loaded.bundle))

    def completion(self, choices: list[CompletionChoice]) -> Completion:
        return Completion(
            id=self.id,
            object="text_completion",
            created=self.created,
            model=self.model,
            system_fingerprint=self.fingerprint,
            choices=choices,
        )


@dataclass(slots=True)
class _Choice:
    """One answer so far; `offset` is where the next token begins in its text."""

    text: str = ""
    finish: str | None = None
    offset: int = 0
    tokens: list[TokenLogprob | None] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: _UTF8(errors="replace"))


class Whole:
    """Pieces put together: with `echo` behind their prompts, with `logprobs` token by token."""

    def __init__(
        self,
        head: Head,
        prompts: Sequence[Asked],
        n: int,
        *,
        echo: bool,
        logprobs: bool,
        scores: Sequence[list[TokenLogprob | None]],
    ) -> None:
        self.head, self._logprobs = head, logprobs
        self.choices = [_Choice() for _ in range(len(prompts) * n)]
        self.tokens = 0
        for number, choice in enumerate(self.choices):
            prompt = prompts[number // n]
            choice.offset = 0 if echo else len(prompt.text)
            if echo:
                choice.text = prompt.text
                if logprobs:
                    self._append(choice, prompt.ids, scores[number // n])

    def add(self, piece: Piece) -> CompletionChoice:
        """What is new, as a part of a stream."""
        choice = self.choices[piece.choice]
        begin = len(choice.ids)
        choice.text += piece.text
        choice.finish = piece.finish or choice.finish
        self.tokens += piece.tokens
        if self._logprobs:
            self._append(choice, [token.id for token in piece.logprobs], piece.logprobs)
        return self._shown(piece.choice, piece.text, piece.finish, begin)

    def echoed(self) -> list[CompletionChoice]:
        """The prompts as the first parts of a stream."""
        return [self._shown(number, choice.text, None, 0) for number, choice in enumerate(self.choices) if choice.text]

    def completion(self, usage: CompletionUsage) -> Completion:
        made = self.head.completion(
            [
                self._shown(number, choice.text, choice.finish or "length", 0)
                for number, choice in enumerate(self.choices)
            ]
        )
        made.usage = usage
        return made

    def _append(self, choice: _Choice, ids: Sequence[int], scores: Sequence[TokenLogprob | None]) -> None:
        for id, score in zip(ids, scores, strict=True):
            choice.ids.append(id)
            choice.tokens.append(score)
            choice.offsets.append(choice.offset)
            choice.offset += len(choice.decoder.decode(self.head.texts.bytes(id)))

    def _shown(self, number: int, text: str, finish: str | None, begin: int) -> CompletionChoice:
        choice = self.choices[number]
        logprobs = None
        if self._logprobs:
            # The first token of a prompt has no likelihood: its places are null, as OpenAI's API gives them.
            logprobs = Logprobs.model_construct(
                tokens=[self.head.texts.text(id) for id in choice.ids[begin:]],
                token_logprobs=[token.logprob if token else None for token in choice.tokens[begin:]],
                top_logprobs=[self._top(token) for token in choice.tokens[begin:]],
                text_offset=choice.offsets[begin:],
            )
        return CompletionChoice.model_construct(index=number, text=text, finish_reason=finish, logprobs=logprobs)

    def _top(self, token: TokenLogprob | None) -> dict[str, float] | None:
        """The likeliest and the token itself; of several that look alike the likeliest counts."""
        if token is None:
            return None
        found: dict[str, float] = {}
        for id, logprob in (*token.top, (token.id, token.logprob)):
            text = self.head.texts.text(id)
            found[text] = max(logprob, found.get(text, logprob))
        return found


async def streamed(
    pieces: AsyncGenerator[Piece, None] | None, whole: Whole, *, usage: bool
) -> AsyncGenerator[tuple[str, int], None]:
    """Events with the tokens that were written for each. With `usage` each says that the usage is still to come."""
    if pieces is not None:
        await anext(pieces)
    for choice in whole.echoed():
        yield _event(whole.head, choice, usage), 0
    if pieces is None:
        for number in range(len(whole.choices)):
            yield _event(whole.head, whole.add(Piece(number, finish="length")), usage), 0
        return
    async for piece in pieces:
        part = whole.add(piece)
        yield _event(whole.head, part, usage) if piece.text or piece.finish or piece.logprobs else "", piece.tokens


def usage_event(head: Head, usage: CompletionUsage) -> str:
    """The last event before the end, where it was asked for."""
    made = head.completion([])
    made.usage = usage
    return sse.event(made.model_dump_json(exclude_unset=True))


def _event(head: Head, choice: CompletionChoice, usage: bool) -> str:
    made = head.completion([])
    made.choices = [choice]
    if usage:
        made.usage = None
    return sse.event(made.model_dump_json(exclude_unset=True))
