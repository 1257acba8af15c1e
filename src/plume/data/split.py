"""Which rows are held out. The automatic split holds out phrasings, not facts.

A row may be held out only if every answer in it is also taught by a row that stays, and its normalised
prompt by none. So a held-out score measures understanding of a new wording, never luck or leakage.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from plume.data.keys import Keys, keys_of
from plume.data.spool import Chosen
from plume.types import Example, Message, Source

SplitBy = Literal["phrasing", "answer"]
Digests = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
_MINIMUM = 4


@dataclass(frozen=True, slots=True)
class Split:
    """Training rows, held-out rows (none: the score is *recall*), and the reason in words."""

    train: Sequence[Example]
    held_out: Sequence[Example]
    reason: str


def split(examples: Sequence[Example], *, test_size: float, split_by: SplitBy = "phrasing", seed: int = 0) -> Split:
    """Hold out about `test_size` of the rows (a fraction of 1); 0 keeps them all for training."""
    if test_size <= 0:
        return Split(examples, (), "test_size is 0: every row is trained, scores are recall")
    if any(example.is_text for example in examples):
        return _split_text(examples, test_size, seed)
    if round(len(examples) * test_size) == 0:
        reason = f"test_size={test_size:g} of {len(examples)} rows is none: every row is trained, scores are recall"
        return Split(examples, (), reason)
    wanted = min(round(len(examples) * test_size), len(examples) - 1)
    keys = keys_of(examples)
    held = _whole_answers(keys, wanted, seed) if split_by == "answer" else _phrasings(keys, wanted, seed)
    if len(held) < min(_MINIMUM, max(1, wanted)):
        reason = "too few rows share an answer to hold phrasings out: every row is trained, scores are recall"
        return Split(examples, (), reason)
    what = "whole answers" if split_by == "answer" else "phrasings whose answers stay in training"
    return Split(
        _all_but(examples, held), Chosen(examples, held), f"{len(held)} of {len(examples)} rows held out: {what}"
    )


def _all_but(examples: Sequence[Example], rows: Rows) -> Chosen:
    return Chosen(examples, np.delete(np.arange(len(examples)), rows))


def _phrasings(keys: Keys, wanted: int, seed: int) -> Rows:
    """Greedily take rows in random order while each of their answers stays taught under another prompt."""
    prompts, prompt = np.unique(keys.prompt, return_inverse=True)
    answers, answer = np.unique(keys.answer, return_inverse=True)
    asked, given = _pairs(prompt[keys.row], answer)
    teachers = np.bincount(given, minlength=len(answers)).tolist()
    bounds = np.searchsorted(asked, np.arange(len(prompts) + 1)).tolist()
    given, rows = given.tolist(), np.bincount(prompt).tolist()
    held, left = np.zeros(len(prompts), dtype=np.bool_), wanted
    early = np.isin(prompts, keys.early)
    for key in np.random.RandomState(_state(seed)).permutation(np.flatnonzero(~early)).tolist():
        taught = given[bounds[key] : bounds[key + 1]]
        if rows[key] > left or any(teachers[one] < 2 for one in taught):
            continue
        held[key] = True
        left -= rows[key]
        for one in taught:
            teachers[one] -= 1
        if not left:
            break
    return np.flatnonzero(held[prompt])


def _whole_answers(keys: Keys, wanted: int, seed: int) -> Rows:
    """Take all the rows of an answer together, except rows whose question is also asked elsewhere."""
    answers, answer = np.unique(keys.answer, return_inverse=True)
    prompts, prompt = np.unique(keys.prompt, return_inverse=True)
    sets, together = np.unique(_answer_sets(keys.row, answers, answer, len(prompt)), return_inverse=True)
    askers = np.bincount(_pairs(prompt, together)[0], minlength=len(prompts))
    givers = np.bincount(_pairs(answer, together[keys.row])[0], minlength=len(answers))
    barred = np.zeros(len(sets), dtype=np.bool_)
    barred[together[(askers[prompt] > 1) | np.isin(keys.prompt, keys.early)]] = True
    barred[together[keys.row[givers[answer] > 1]]] = True
    rows, left = np.bincount(together).tolist(), wanted
    held = np.zeros(len(sets), dtype=np.bool_)
    for key in np.random.RandomState(_state(seed)).permutation(np.flatnonzero(~barred)).tolist():
        if rows[key] <= left:
            held[key] = True
            left -= rows[key]
    return np.flatnonzero(held[together])


def _answer_sets(row: Rows, answers: Digests, answer: Rows, rows: int) -> Digests:
    """One number for the set of answers of each row: a sum, which knows no order."""
    givers, given = _pairs(row, answer)
    sums = np.zeros(rows, dtype=np.uint64)
    np.add.at(sums, givers, answers[given])
    return sums


def _pairs(first: Rows, second: Rows) -> tuple[Rows, Rows]:
    """Different pairs of small numbers, in order."""
    width = int(second.max(initial=0)) + 1
    codes = np.unique(first * width + second)
    return codes // width, codes % width


def _state(seed: int) -> Digests:
    """A start for numpy's Mersenne Twister, whose numbers stay the same from version to version."""
    return np.frombuffer(hashlib.blake2b(str(seed).encode(), digest_size=16).digest(), dtype=np.uint32)


def _split_text(examples: Sequence[Example], test_size: float, seed: int) -> Split:
    """Text: whole documents when there are several, else the end of the only one."""
    if len(examples) > 1:
        order = list(range(len(examples)))
        random.Random(seed).shuffle(order)
        chosen = set(order[: min(max(1, round(len(examples) * test_size)), len(examples) - 1)])
        held = np.array(sorted(chosen))
        reason = f"{len(held)} of {len(examples)} documents held out"
        return Split(_all_but(examples, held), Chosen(examples, held), reason)
    message, source = examples[0].messages[0], examples[0].source
    cut = round(len(message.content) * (1 - test_size))
    head, tail = message.content[:cut], message.content[cut:]
    if not head.strip() or not tail.strip():
        return Split(examples, (), "the text is too short to hold a part out")
    line = (source.line or 1) + head.count("\n")
    kept = Example((Message("assistant", head),), source, cut=True)
    end = Example((Message("assistant", tail),), Source(source.file, line), cut=examples[0].cut)
    return Split((kept,), (end,), f"the last {test_size:.0%} of the text held out")
