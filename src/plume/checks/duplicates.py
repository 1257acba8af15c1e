"""D201, D202, D203: rows that repeat, nearly repeat or contradict earlier ones."""

from __future__ import annotations

import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import Self

import numpy as np

from plume import similar
from plume.checks.near import Wordings, columns, first_equal
from plume.checks.rules import Batch, survey
from plume.types import Finding, Source

_NAMED = 5  # earlier rows that a contradiction names


@survey("D201")
class Repeats:
    """Rows whose messages are all equal, to the letter, to those of an earlier row. 16 bytes a row."""

    def __init__(self) -> None:
        self._file = ""
        self._lines = array("q")
        self._rows = bytearray()

    def see(self, batch: Batch) -> None:
        self._file = self._file or batch.file
        self._lines.extend([example.source.line or 0 for example in batch.examples])
        self._rows += b"".join(batch.digests)

    def merge(self, later: Self) -> None:
        self._file = self._file or later._file
        self._lines += later._lines
        self._rows += later._rows

    def findings(self) -> Iterator[Finding]:
        first = first_equal(columns(self._rows))
        for row in np.flatnonzero(first != np.arange(len(first))).tolist():
            line, known = self._lines[row], self._lines[first[row]]
            yield Finding(
                "D201",
                "warning",
                Source(self._file, line or None),
                f"the row repeats {_line(known, line)} word for word",
                "remove it, unless it is meant to weigh more",
                (Source(self._file, known or None),),
            )


@survey("D202")
class NearRepeats:
    """Rows with the same completion whose prompts say the same but for spelling.

    Completions are the same when equal in NFC. Prompts say the same when they are equal after folding case,
    punctuation, white space and accents, or within 2 edits (Levenshtein over the folded words), provided that
    - they have as many words, at most 32, and the edits fall into one word or, up to 16 words, into two; the shorter
      prompt has 8 letters for one edit, 10 for two;
    - no word that differs holds a digit or is a name: a word that stands with a capital inside a sentence in these
      prompts or in another of the file;
    - every word that differs is a slip (`similar.slip`): letters swapped (`teh`), or one edit in a word of four
      letters, two in one of six, the first letter staying; two common words (`when`, `where`; `six`, `seize`;
      `can`, `cant`) never are slips of each other;
    - its place is not a slot of a template, where four words far from each other stand in otherwise equal prompts.
    Paraphrases and prompts that differ in a number or name are never near-repeats. In a conversation everything else
    must be the same (questions normalised, replies NFC). About 90 bytes a row.
    """

    def __init__(self) -> None:
        self._file = ""
        self._wordings = Wordings()

    def see(self, batch: Batch) -> None:
        self._file = self._file or batch.file
        self._wordings.add(batch)

    def merge(self, later: Self) -> None:
        self._file = self._file or later._file
        self._wordings.merge(later._wordings)

    def findings(self) -> Iterator[Finding]:
        for row, earlier in self._wordings.repeats():
            line, known = self._wordings.lines[row], self._wordings.lines[earlier]
            yield Finding(
                "D202",
                "warning",
                Source(self._file, line or None),
                f"the row nearly repeats {_line(known, line)}: the same completion, the prompt spelt otherwise",
                "keep one of them, or ask in other words",
                (Source(self._file, known or None),),
            )


@survey("D203")
class Contradictions:
    """Questions (normalised, with all that was said before) that have different answers (NFC). 32 bytes a reply."""

    def __init__(self) -> None:
        self._file = ""
        self._lines = array("q")
        self._questions = bytearray()
        self._answers = bytearray()
        self._meanings = bytearray()

    def see(self, batch: Batch) -> None:
        self._file = self._file or batch.file
        for line, question, reply, folded in asked(batch):
            self._lines.append(line)
            self._questions += question
            self._answers += similar.digest(unicodedata.normalize("NFC", reply))
            self._meanings += similar.digest(meaning(folded))

    def merge(self, later: Self) -> None:
        self._file = self._file or later._file
        self._lines += later._lines
        self._questions += later._questions
        self._answers += later._answers
        self._meanings += later._meanings

    def findings(self) -> Iterator[Finding]:
        questions, answers = columns(self._questions), columns(self._answers)
        question, pair = first_equal(questions), first_equal(questions, answers)
        new = np.flatnonzero(pair == np.arange(len(pair)))
        contested = new[np.bincount(question[new], minlength=len(pair))[question[new]] > 1]
        earlier: dict[int, list[int]] = defaultdict(list)
        for row in contested.tolist():
            known = earlier[int(question[row])]
            if known:
                yield self._finding(row, known)
            if len(known) < _NAMED:
                known.append(row)

    def _finding(self, row: int, known: list[int]) -> Finding:
        alike = [other for other in known if self._meaning(other) == self._meaning(row)]
        numbers = ", ".join(str(self._lines[other]) for other in known)
        message = f"the same question has another answer on line{'s' * (len(known) > 1)} {numbers}"
        if alike:
            message += f"; this one and line {self._lines[alike[0]]} differ only in form: {_FORMS}"
        return Finding(
            "D203",
            "error",
            Source(self._file, self._lines[row] or None),
            message,
            "write the answer in one form" if len(alike) == len(known) else "keep one answer; no model can give both",
            tuple(Source(self._file, self._lines[other] or None) for other in known),
        )

    def _meaning(self, row: int) -> bytearray:
        return self._meanings[similar.DIGEST * row : similar.DIGEST * (row + 1)]


_FORMS = "case, spacing, punctuation, or in JSON the order of keys and numbers written as text"


def _line(known: int, line: int) -> str:
    return f"line {known}" if known != line else "an earlier row of the same line"


def asked(batch: Batch) -> Iterator[tuple[int, bytes, str, str]]:
    """Of every row that ends on a reply to a question: line, digest of all that was said before it (normalised), the
    reply, and the normalised reply. Earlier replies of a conversation are small talk as often as not."""
    examples = [example for example in batch.examples if len(example.messages) > 1]
    folded = iter(similar.normalise_all([message.said for example in examples for message in example.messages]))
    for example in examples:
        said = "".join([f"{message.role}\0{next(folded)}\0" for message in example.messages[:-1]])
        text, last = next(folded), example.messages[-1]
        if last.role == "assistant":
            yield example.source.line or 0, similar.digest(said), last.said, text


def meaning(folded: str) -> str:
    """A normalised answer without its form: of a JSON object what stands between commas, bare, in any order."""
    if not folded.startswith("{"):
        return folded.replace('"', "").replace(" ", "") if folded.startswith("[") else folded
    bare = folded.replace('"', "").replace(" ", "").removeprefix("{").removesuffix("}")
    return "\0".join(sorted(bare.split(",")))
