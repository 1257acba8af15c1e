"""D2: what the rows say, compared with one another. Each check takes all examples and yields findings."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice

from plume.similar import normalise
from plume.types import Example, Finding, Message, Source

_FEW = 10
_NAMED = 5  # earlier rows that a contradiction names


def repeats(examples: Sequence[Example]) -> Iterator[Finding]:
    """D201: the very same conversation again."""
    first: dict[tuple[Message, ...], Source] = {}
    for example in examples:
        if example.messages in first:
            yield Finding(
                "D201",
                "warning",
                example.source,
                f"the row repeats line {first[example.messages].line} word for word",
                "remove it, unless it is meant to weigh more",
                (first[example.messages],),
            )
        else:
            first[example.messages] = example.source


def contradictions(examples: Sequence[Example]) -> Iterator[Finding]:
    """D203: one question (normalised, with its history) and different answers."""
    answers: dict[tuple[tuple[str, str], ...], dict[str, Source]] = {}
    for example in examples:
        for turn in example.turns():
            if not turn.history:
                continue
            question = tuple((message.role, normalise(message.content)) for message in turn.history)
            known = answers.setdefault(question, {})
            answer = unicodedata.normalize("NFC", turn.reply.content)
            if answer not in known:
                if known:
                    yield _contradiction(example, turn.history[-1].content, dict(islice(known.items(), _NAMED)))
                known[answer] = example.source


def _contradiction(example: Example, prompt: str, others: dict[str, Source]) -> Finding:
    lines = ", ".join(str(source.line) for source in others.values())
    return Finding(
        "D203",
        "error",
        example.source,
        f"{_short(prompt)} has another answer on line {lines}: {_short(next(iter(others)))}",
        "keep one answer; no model can give both",
        tuple(others.values()),
    )


def amount(examples: Sequence[Example], file: str) -> Iterator[Finding]:
    """D215: is there enough to learn from?"""
    if any(example.is_text for example in examples):
        return
    if len(examples) == 1:
        message = "there is only one example: nothing can be learnt from it but itself"
        yield Finding(
            "D215", "error", Source(file), message, "write at least 10, with several phrasings of each question"
        )
    elif 1 < len(examples) < _FEW:
        message = f"there are only {len(examples)} examples"
        yield Finding("D215", "warning", Source(file), message, "write more, with several phrasings of each question")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
