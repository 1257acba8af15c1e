"""Which rows are held out. The automatic split holds out phrasings, not facts.

A row may be held out only if every answer in it is also taught by a row that stays, and its normalised
prompt by none. So a held-out score measures understanding of a new wording, never luck or leakage.
"""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plume.similar import normalise
from plume.types import Example, Message, Source

SplitBy = Literal["phrasing", "answer"]
_MINIMUM = 4


@dataclass(frozen=True, slots=True)
class Split:
    """Training rows, held-out rows (none: the score is *recall*), and the reason in words."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    reason: str


def split(examples: Sequence[Example], *, test_size: float, split_by: SplitBy = "phrasing", seed: int = 0) -> Split:
    """Hold out about `test_size` of the rows (a fraction of 1); 0 keeps them all for training."""
    if test_size <= 0:
        return Split(tuple(examples), (), "test_size is 0: every row is trained, scores are recall")
    if any(example.is_text for example in examples):
        return _split_text(examples, test_size, seed)
    if round(len(examples) * test_size) == 0:
        reason = f"test_size={test_size:g} of {len(examples)} rows is none: every row is trained, scores are recall"
        return Split(tuple(examples), (), reason)
    wanted = min(round(len(examples) * test_size), len(examples) - 1)
    held = _whole_answers(examples, wanted, seed) if split_by == "answer" else _phrasings(examples, wanted, seed)
    if len(held) < min(_MINIMUM, max(1, wanted)):
        reason = "too few rows share an answer to hold phrasings out: every row is trained, scores are recall"
        return Split(tuple(examples), (), reason)
    chosen = {id(example) for example in held}
    kept = tuple(example for example in examples if id(example) not in chosen)
    what = "whole answers" if split_by == "answer" else "phrasings whose answers stay in training"
    return Split(kept, tuple(held), f"{len(held)} of {len(examples)} rows held out: {what}")


def question_key(history: Sequence[Message]) -> str:
    """What was asked, folded: two turns with one key are the same question."""
    return "\0".join(f"{message.role}:{normalise(message.content)}" for message in history)


def prompt_key(example: Example) -> str:
    """The question of an example's last reply."""
    return question_key(example.messages[:-1])


def taught_questions(train: Sequence[Example]) -> frozenset[str]:
    """Every question that training answers, the early turns of conversations included."""
    return frozenset(question_key(turn.history) for example in train for turn in example.turns())


def _answers(example: Example) -> frozenset[str]:
    return frozenset(unicodedata.normalize("NFC", turn.reply.content) for turn in example.turns())


def _phrasings(examples: Sequence[Example], wanted: int, seed: int) -> list[Example]:
    """Greedily take rows in random order while each of their answers stays taught under another prompt."""
    by_prompt: dict[str, list[Example]] = defaultdict(list)
    teachers: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        key = prompt_key(example)
        by_prompt[key].append(example)
        for answer in _answers(example):
            teachers[answer].add(key)
    keys = sorted(set(by_prompt) - _early_questions(examples))
    random.Random(seed).shuffle(keys)
    held: list[Example] = []
    for key in keys:
        rows = by_prompt[key]
        answers = frozenset().union(*(_answers(row) for row in rows))
        if len(held) + len(rows) > wanted or any(len(teachers[answer]) < 2 for answer in answers):
            continue
        held += rows
        for answer in answers:
            teachers[answer].discard(key)
    return held


def _early_questions(examples: Sequence[Example]) -> frozenset[str]:
    """Questions that a conversation answers before its last turn; holding them out would leak."""
    return frozenset(
        question_key(turn.history) for example in examples for turn in list(example.turns())[:-1] if turn.history
    )


def _whole_answers(examples: Sequence[Example], wanted: int, seed: int) -> list[Example]:
    """Take all the rows of an answer together, except rows whose question is also asked elsewhere."""
    by_answer: dict[frozenset[str], list[Example]] = defaultdict(list)
    askers: dict[str, set[frozenset[str]]] = defaultdict(set)
    givers: dict[str, set[frozenset[str]]] = defaultdict(set)
    for example in examples:
        by_answer[_answers(example)].append(example)
        askers[prompt_key(example)].add(_answers(example))
        for reply in _answers(example):
            givers[reply].add(_answers(example))
    opened = _early_questions(examples)
    answers = sorted(by_answer, key=sorted)
    random.Random(seed).shuffle(answers)
    held: list[Example] = []
    for answer in answers:
        rows = by_answer[answer]
        early = any(prompt_key(row) in opened for row in rows)
        asked_once = all(len(askers[prompt_key(row)]) == 1 for row in rows)
        given_once = all(len(givers[reply]) == 1 for reply in answer)
        if asked_once and given_once and not early and len(held) + len(rows) <= wanted:
            held += rows
    return held


def _split_text(examples: Sequence[Example], test_size: float, seed: int) -> Split:
    """Text: whole documents when there are several, else the end of the only one."""
    if len(examples) > 1:
        order = list(range(len(examples)))
        random.Random(seed).shuffle(order)
        chosen = set(order[: min(max(1, round(len(examples) * test_size)), len(examples) - 1)])
        train = tuple(example for index, example in enumerate(examples) if index not in chosen)
        documents = tuple(example for index, example in enumerate(examples) if index in chosen)
        return Split(train, documents, f"{len(documents)} of {len(examples)} documents held out")
    message, source = examples[0].messages[0], examples[0].source
    cut = round(len(message.content) * (1 - test_size))
    head, tail = message.content[:cut], message.content[cut:]
    if not head.strip() or not tail.strip():
        return Split(tuple(examples), (), "the text is too short to hold a part out")
    line = (source.line or 1) + head.count("\n")
    kept = Example((Message("assistant", head),), source, cut=True)
    held = Example((Message("assistant", tail),), Source(source.file, line), cut=examples[0].cut)
    return Split((kept,), (held,), f"the last {test_size:.0%} of the text held out")
