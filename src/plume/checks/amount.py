"""D215: is there enough to learn from?"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy

from plume.checks.rules import Batch, survey
from plume.similar import normalise
from plume.types import Finding, Source

_FEW = 10
_MANY = 10_000  # rows; beyond, wordings are not counted: so large a file is no list of facts
_FACT = 200  # characters; a longer answer is no single fact
_ASKS = ("?", "？", "؟")


@survey("D215")
@dataclass
class Amount:
    """Too few rows; or most facts (short answers to questions) asked in one wording. Silent about plain text."""

    file: str = ""
    rows: int = 0
    text: bool = False
    replies: int = 0
    answers: array[int] = field(default_factory=lambda: array("I"))
    prompts: array[int] = field(default_factory=lambda: array("I"))

    def see(self, batch: Batch) -> None:
        self.file = batch.file
        self.text = self.text or any(len(example.messages) == 1 for example in batch.examples)
        self.rows += len(batch.examples)
        self.replies += len(batch.asked)
        if self.replies <= _MANY:
            asked = [asked for asked in batch.asked if asked.prompt.endswith(_ASKS)]
            facts = [question for question in asked if len(question.completion) <= _FACT]
            self.answers.extend([_digest(fact.completion) for fact in facts])
            self.prompts.extend([_digest(normalise(fact.prompt)) for fact in facts])

    def merge(self, later: Self) -> None:
        self.file = self.file or later.file
        self.text = self.text or later.text
        self.rows += later.rows
        self.replies += later.replies
        if self.replies <= _MANY:
            self.answers.extend(later.answers)
            self.prompts.extend(later.prompts)

    def findings(self) -> Iterator[Finding]:
        if self.text or not self.rows:
            return
        if self.rows < _FEW:
            one = "there is only one example: nothing can be learnt from it but itself"
            few = f"there are only {self.rows} examples"
            hint = "write at least 10, with several phrasings of each question"
            more = "write more, with several phrasings of each question"
            if self.rows == 1:
                yield Finding("D215", "error", Source(self.file), one, hint)
            else:
                yield Finding("D215", "warning", Source(self.file), few, more)
        elif self.replies <= _MANY and 2 * len(self.answers) > self.replies:
            yield from self._wordings()

    def _wordings(self) -> Iterator[Finding]:
        pairs = numpy.array(self.answers, numpy.uint64) << numpy.uint64(32) | numpy.array(self.prompts, numpy.uint64)
        answers, wordings = numpy.unique(numpy.unique(pairs) >> numpy.uint64(32), return_counts=True)
        single = int((wordings == 1).sum())
        if 2 * single > len(answers):
            message = f"{single} of {len(answers)} different answers are asked for in one wording only"
            hint = "ask each in several wordings: taught one each, a model answered 7 % of questions worded anew"
            yield Finding("D215", "info", Source(self.file), message, hint)


def _digest(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))
