"""D4: what evaluation rows share with training rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from plume.similar import normalise
from plume.types import Example, Finding, Source


def overlap(train: Sequence[Example], evaluation: Sequence[Example]) -> Iterator[Finding]:
    """D401: an evaluation question that training asks too, with the same answer."""
    taught: dict[tuple[tuple[str, str], ...], Source] = {}
    for example in train:
        taught.setdefault(_key(example), example.source)
    for example in evaluation:
        source = taught.get(_key(example))
        if source is not None:
            yield Finding(
                "D401",
                "error",
                example.source,
                f"the row is also in the training data ({source}): its score shows memory only",
                "remove it from one of the two files",
                (source,),
            )


def _key(example: Example) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, normalise(message.content)) for message in example.messages)
