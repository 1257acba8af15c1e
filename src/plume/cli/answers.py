"""Answers on stdout: one as it comes, several when all are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plume.cli import output
from plume.types import Chunk, Message, Sampling


def show(chunks: Iterator[Chunk], sampling: Sampling, *, json: bool) -> list[list[Chunk]]:
    """Collect the chunks of each answer, and print the text unless JSON is to follow; several stand apart by an empty
    line."""
    answers: list[list[Chunk]] = [[] for _ in range(sampling.n)]
    for chunk in chunks:
        answers[chunk.choice].append(chunk)
        if not json and sampling.n == 1:
            output.write(chunk.text, end="")
    if not json:
        output.write("" if sampling.n == 1 else "\n\n".join(map(text, answers)))
    return answers


def show_message(message: Message) -> None:
    """A stored message on stdout: what was said, the tools that were called, and what they gave."""
    answers = f" answers {message.tool_call_id}" if message.tool_call_id else ""
    if message.content or not message.tool_calls:
        output.write(f"{message.role}{answers}: {message.content}")
    for call in message.tool_calls:
        named = f" as {call.id}" if call.id else ""
        output.write(f"{message.role} calls {call.name}{named}: {call.arguments}")


def text(chunks: Sequence[Chunk]) -> str:
    """What an answer says."""
    return "".join(chunk.text for chunk in chunks)


def ids(chunks: Sequence[Chunk]) -> list[int]:
    """Its tokens, the one that ended it included."""
    return [id for chunk in chunks for id in chunk.ids]


def logprobs(chunks: Sequence[Chunk], sampling: Sampling) -> dict[str, Any]:
    """The log-probabilities as JSON has them, where they were asked for."""
    if sampling.logprobs is None:
        return {}
    tokens = [one for chunk in chunks for one in chunk.logprobs]
    return {"logprobs": [{"id": one.id, "logprob": one.logprob, "top": one.top} for one in tokens]}


def with_others(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first answer as JSON, with the other ones in it."""
    first, *others = values
    return {**first, "others": others} if others else first


def remarks(sampling: Sampling, *, json: bool) -> None:
    """Say on stderr what the settings do that they may not seem to."""
    from plume.generation.settings import warnings_of

    for sentence in warnings_of(sampling):
        output.note(f"note: {sentence}")
    if sampling.logprobs is not None and not json:
        output.note("note: log-probabilities are printed with --json")
