"""A chat completion from its pieces: whole, or as chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from openai.types import CompletionUsage
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionTokenLogprob,
)
from openai.types.chat import chat_completion as whole
from openai.types.chat import chat_completion_chunk as chunk
from openai.types.chat.chat_completion_message_function_tool_call import Function

from plume.models.bundle import Bundle
from plume.serving import sse
from plume.serving.said import CallPiece, Finish, Piece
from plume.serving.token_texts import TokenTexts


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of an answer repeats; `texts` only where log-probabilities are to be told."""

    id: str
    created: int
    model: str
    fingerprint: str
    texts: TokenTexts | None

    @classmethod
    def new(cls, model: str, fingerprint: str, logprobs: bool, bundle: Bundle) -> Head:
        id = f"chatcmpl-{secrets.token_hex(14)}"
        return cls(id, int(time.time()), model, fingerprint, TokenTexts(bundle) if logprobs else None)


class Whole:
    """Pieces put together."""

    def __init__(self, head: Head, n: int) -> None:
        self._head = head
        self._texts = [""] * n
        self._finish: list[Finish] = ["length"] * n
        self._calls: list[dict[int, CallPiece]] = [{} for _ in range(n)]
        self._logprobs: list[list[ChatCompletionTokenLogprob]] = [[] for _ in range(n)]
        self.tokens = 0

    def add(self, piece: Piece) -> None:
        self._texts[piece.choice] += piece.text
        self._finish[piece.choice] = piece.finish or self._finish[piece.choice]
        self.tokens += piece.tokens
        if self._head.texts:
            self._logprobs[piece.choice] += self._head.texts.shown(piece.logprobs)
        if piece.call:
            calls = self._calls[piece.choice]
            before = calls.get(piece.call.index)
            new = piece.call
            calls[new.index] = (
                CallPiece(new.index, before.arguments + new.arguments, before.id, before.name) if before else new
            )

    def completion(self, usage: CompletionUsage) -> ChatCompletion:
        return ChatCompletion(
            id=self._head.id,
            object="chat.completion",
            created=self._head.created,
            model=self._head.model,
            system_fingerprint=self._head.fingerprint,
            choices=[self._choice(number) for number in range(len(self._texts))],
            usage=usage,
        )

    def _choice(self, number: int) -> whole.Choice:
        calls = self._calls[number]
        message = ChatCompletionMessage(
            role="assistant", content=self._texts[number] or (None if calls else ""), refusal=None
        )
        if calls:
            message.tool_calls = [
                ChatCompletionMessageFunctionToolCall(
                    id=call.id or "", type="function", function=Function(name=call.name or "", arguments=call.arguments)
                )
                for _, call in sorted(calls.items())
            ]
        logprobs = whole.ChoiceLogprobs(content=self._logprobs[number], refusal=None) if self._head.texts else None
        return whole.Choice(index=number, message=message, finish_reason=self._finish[number], logprobs=logprobs)


async def streamed(
    pieces: AsyncGenerator[Piece, None], head: Head, n: int, *, usage: bool
) -> AsyncGenerator[tuple[str, int], None]:
    """Events with the tokens that were written for each: the role of every choice as soon as the request is accepted,
    then what is said, then why it ended. With `usage` each says that the usage is still to come."""
    await anext(pieces)
    for choice in range(n):
        delta = chunk.ChoiceDelta(role="assistant", content="", refusal=None)
        yield _event(head, choice, delta, usage=usage), 0
    async for piece in pieces:
        tokens = piece.tokens
        for delta in _deltas(piece):
            yield _event(head, piece.choice, delta, piece, usage=usage), tokens
            tokens = 0
        if piece.finish:
            yield _event(head, piece.choice, chunk.ChoiceDelta(), finish=piece.finish, usage=usage), tokens
        elif tokens:
            yield "", tokens


def usage_event(head: Head, usage: CompletionUsage) -> str:
    """The last event before the end, where it was asked for."""
    return _json(head, [], usage)


def _deltas(piece: Piece) -> Iterator[chunk.ChoiceDelta]:
    if piece.text or piece.logprobs:
        yield chunk.ChoiceDelta(content=piece.text)
    if piece.call:
        call = piece.call
        function = chunk.ChoiceDeltaToolCallFunction(arguments=call.arguments)
        delta = chunk.ChoiceDeltaToolCall(index=call.index, function=function)
        if call.id:
            function.name = call.name
            delta = chunk.ChoiceDeltaToolCall(index=call.index, id=call.id, type="function", function=function)
        yield chunk.ChoiceDelta(tool_calls=[delta])


def _event(
    head: Head,
    choice: int,
    delta: chunk.ChoiceDelta,
    piece: Piece | None = None,
    *,
    finish: Finish | None = None,
    usage: bool,
) -> str:
    logprobs = None
    if head.texts and piece is not None and delta.content is not None:
        logprobs = chunk.ChoiceLogprobs(content=head.texts.shown(piece.logprobs), refusal=None)
    said = chunk.Choice(index=choice, delta=delta, logprobs=logprobs, finish_reason=finish)
    return _json(head, [said], None, usage=usage)


def _json(head: Head, choices: list[chunk.Choice], total: CompletionUsage | None, *, usage: bool = True) -> str:
    made = ChatCompletionChunk(
        id=head.id,
        object="chat.completion.chunk",
        created=head.created,
        model=head.model,
        system_fingerprint=head.fingerprint,
        choices=choices,
    )
    if usage:
        made.usage = total
    return sse.event(made.model_dump_json(exclude_unset=True))
