"""Training rows that a model is asked again, to see what it learnt by heart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from plume.data.keys import Keys
from plume.data.spool import Chosen
from plume.types import Example, Message

_ROWS = 512
_STRETCHES, _STRETCH = 50, 2000  # of training text, in characters


def recall_rows(train: Sequence[Example], keys: Keys | None) -> Sequence[Example]:
    """Distinct training questions that have one answer; of plain text (no keys), stretches from all over it."""
    if keys is None:
        return list(islice((part for example in train for part in _parts(example, len(train))), _ROWS))
    _, first, question = np.unique(keys.prompt, return_index=True, return_inverse=True)
    several = np.zeros(len(first), dtype=np.bool_)
    several[question[keys.said != keys.said[first][question]]] = True
    rows = np.sort(first[~several])[:_ROWS]
    return Chosen(train, rows) if len(rows) else train[:_ROWS]


def _parts(example: Example, documents: int) -> Iterator[Example]:
    text = example.messages[0].content
    count = max(1, _STRETCHES // documents)
    if len(text) <= count * _STRETCH:
        yield example
        return
    for index in range(count):
        at = index * (len(text) - _STRETCH) // max(1, count - 1)
        yield replace(example, messages=(Message("assistant", text[at : at + _STRETCH]),), cut=True)
