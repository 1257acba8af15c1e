"""D4: what evaluation rows share with training rows, and what their score can show."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Self

import numpy as np

from plume import similar
from plume.checks.near import Wordings, asked_at, columns, first_equal
from plume.checks.rules import Batch
from plume.runs import fingerprint
from plume.types import Example, Finding, Source

ENOUGH = 100  # rows: a score of 90 % then means 83 % to 94 %
_ROWS = 4096
_NAMED = 5  # rows that a finding about many names


def overlap(train: Sequence[Example], evaluation: Sequence[Example]) -> Iterator[Finding]:
    """D401: an evaluation question that training asks too, with the same answer."""
    return _taught(train).overlap(_taught(evaluation))


def leaks(train: Sequence[Example], evaluation: Sequence[Example]) -> Iterator[Finding]:
    """D401 to D405: everything to say about two sets of rows."""
    return _taught(train).findings(_batches(evaluation))


class Taught:
    """What rows ask and answer, in digests, for a comparison with other rows. About 120 bytes a row.

    A question is normalised together with all that was said before it, so every reply of a conversation counts. An
    evaluation row is in training when all that was said in it up to its last reply was said there, from the start.
    """

    def __init__(self) -> None:
        self._wordings = Wordings()
        self._rows = _Places()
        self._replies = _Places()
        self._conversations = bytearray()
        self._answers = bytearray()
        self._last = array("q")
        self._files: dict[str, None] = {}

    def see(self, batch: Batch) -> None:
        """Take note of some rows."""
        self._files[batch.file] = None
        examples = [example for example in batch.examples if asked_at(example) is not None]
        self._wordings.add(Batch(batch.file, examples))
        self._rows.add(batch.file, [example.source.line for example in examples])
        folded = iter(similar.normalise_all([message.said for example in examples for message in example.messages]))
        lines = []
        for example in examples:
            said = ""
            for message in example.messages:
                content = next(folded)
                asked, said = said, f"{said}{message.role}\0{content}\0"
                if message.role == "assistant" and asked:
                    lines.append(example.source.line)
                    self._conversations += similar.digest(said)
                    self._answers += similar.digest(content)
            self._last.append(len(self._answers) // similar.DIGEST - 1)
        self._replies.add(batch.file, lines)

    def merge(self, later: Self) -> None:
        """Take over what was noted of later rows."""
        self._last.extend([reply + len(self._answers) // similar.DIGEST for reply in later._last])
        self._wordings.merge(later._wordings)
        self._rows.merge(later._rows)
        self._replies.merge(later._replies)
        self._conversations += later._conversations
        self._answers += later._answers
        self._files |= later._files

    def findings(self, evaluation: Iterable[Batch]) -> Iterator[Finding]:
        """What there is to say about evaluating on these rows a model that was taught all rows seen."""
        asked = type(self)()
        for batch in evaluation:
            asked.see(batch)
        again = self._known(asked)
        same = self._same_file(asked, len(again))
        yield from same
        leaked = [self._leak(asked, row, known) for row, known in again]
        yield from leaked[:1] if same else leaked
        if not same:
            yield from self._near(asked, {row for row, _ in again})
        yield from asked._too_small()
        yield from self._never_taught(asked)

    def overlap(self, asked: Self) -> Iterator[Finding]:
        """D401: rows whose whole conversation stands in training."""
        for row, known in self._known(asked):
            yield self._leak(asked, row, known)

    def _known(self, asked: Self) -> list[tuple[int, int]]:
        """(row, first reply of the training rows up to which the same was said) for rows that stand in training."""
        taught = len(self._conversations) // similar.DIGEST
        last = columns(asked._conversations)[asked._last]
        first = first_equal(np.concatenate([columns(self._conversations), last]))[taught:]
        return [(int(row), int(first[row])) for row in np.flatnonzero(first < taught)]

    def _leak(self, asked: Self, row: int, known: int) -> Finding:
        source = self._replies[known]
        return Finding(
            "D401",
            "error",
            asked._rows[row],
            f"the row is also in the training data ({source}): its score shows memory only",
            "remove it from one of the two files",
            (source,),
        )

    def _near(self, asked: Self, known: set[int]) -> Iterator[Finding]:
        for row, other in self._wordings.shared(asked._wordings):
            if row not in known:
                source = self._rows[other]
                yield Finding(
                    "D402",
                    "warning",
                    asked._rows[row],
                    f"the row is nearly a row of the training data ({source}): the same answer, and a question that "
                    "differs in spelling only",
                    "remove it from one of the two files, or ask in other words",
                    (source,),
                )

    def _same_file(self, asked: Self, known: int) -> list[Finding]:
        """D403 for each evaluation file that a training file equals, or for all rows together."""
        found = []
        for file in asked._files:
            for other in self._files:
                if (how := _same(file, other)) is not None:
                    found.append(_is_training(file, other, how))
                    break
        rows = len(asked._last)
        if not found and 1 < rows == known:
            file, other = next(iter(asked._files)), next(iter(self._files))
            found.append(_is_training(file, other, f"all of its {rows} rows are in the training data"))
        return found

    def _too_small(self) -> Iterator[Finding]:
        rows = len(self._last)
        if 0 < rows < ENOUGH:
            low, high = interval(0.9, rows)
            yield Finding(
                "D404",
                "info",
                Source(next(iter(self._files))),
                f"on {rows} row{'s' * (rows > 1)} a score of 90 % means somewhere between {100 * low:.0f} % and "
                f"{100 * high:.0f} %",
                f"ask {ENOUGH} questions or more before two models are compared",
            )

    def _never_taught(self, asked: Self) -> Iterator[Finding]:
        """D405, when most answers of the evaluation are taught, so that answers are there to be recalled."""
        taught = len(self._answers) // similar.DIGEST
        first = first_equal(np.concatenate([columns(self._answers), columns(asked._answers)]))[taught:]
        unknown = np.flatnonzero(first >= taught)
        if not 0 < 2 * len(unknown) < len(first):
            return
        sources = list(dict.fromkeys(asked._replies[int(reply)] for reply in unknown[: 10 * _NAMED]))[: _NAMED + 1]
        one = len(unknown) == 1
        yield Finding(
            "D405",
            "warning",
            sources[0],
            f"{len(unknown)} of {len(first)} answers {'is' if one else 'are'} given nowhere in the training data, "
            "though most are: what was never taught cannot be recalled",
            "teach these answers too, under other wordings, or do not ask for them",
            tuple(sources[1:]),
        )


class _Places:
    """Where rows stand: files in runs, and a line each."""

    def __init__(self) -> None:
        self._lines = array("q")
        self._files: list[tuple[int, str]] = []

    def add(self, file: str, lines: Sequence[int | None]) -> None:
        if not self._files or self._files[-1][1] != file:
            self._files.append((len(self._lines), file))
        self._lines.extend([line or 0 for line in lines])

    def merge(self, later: Self) -> None:
        self._files += [(start + len(self._lines), file) for start, file in later._files]
        self._lines += later._lines

    def __getitem__(self, index: int) -> Source:
        run = bisect_right(self._files, index, key=lambda run: run[0]) - 1
        return Source(self._files[run][1], self._lines[index] or None)


def interval(score: float, rows: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate measured on some rows (Wilson 1927), as fractions of 1."""
    z = 1.959964
    centre = score + z * z / (2 * rows)
    spread = z * math.sqrt(score * (1 - score) / rows + z * z / (4 * rows * rows))
    return (centre - spread) / (1 + z * z / rows), (centre + spread) / (1 + z * z / rows)


def _is_training(file: str, other: str, how: str) -> Finding:
    return Finding(
        "D403",
        "error",
        Source(file),
        f"the evaluation data is the training data: {how}; every score on it shows memory only",
        "evaluate on rows that are not trained, or leave the evaluation file out and let Plume hold rows out",
        (Source(other),),
    )


def _same(file: str, other: str) -> str | None:
    """In what two files are the same, in words; None when they differ or cannot be read."""
    try:
        if Path(file).samefile(other):
            return f"{file} and {other} are one file" if file != other else f"{file} is both"
        if Path(file).stat().st_size == Path(other).stat().st_size and fingerprint(file) == fingerprint(other):
            return f"{file} and {other} hold the same bytes"
    except OSError:
        pass
    return None


def _taught(examples: Sequence[Example]) -> Taught:
    taught = Taught()
    for batch in _batches(examples):
        taught.see(batch)
    return taught


def _batches(examples: Sequence[Example]) -> Iterator[Batch]:
    for file, rows in groupby(examples, key=lambda example: example.source.file):
        while some := list(islice(rows, _ROWS)):
            yield Batch(file, some)
