"""What `--fix` will do: which rows go, and which rows each repair is called for.

Rows are known by their number in the reading (from 1), since all rows of an array may stand on one line: the checks
are given that number in the place of a line.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from plume import similar
from plume.checks.answers import echoes
from plume.checks.characters import Characters, Spacing
from plume.checks.duplicates import NearRepeats, Repeats, asked
from plume.checks.fix_rows import Row
from plume.checks.leftovers import Markup
from plume.checks.near import columns, first_equal
from plume.checks.private import listed_names, personal_data, secrets
from plume.checks.repair import REPAIRS, Affix, Repair, each, ended, ordered, private
from plume.checks.rules import Batch
from plume.checks.selection import Exceptions, Selection
from plume.checks.shapes import JSONAnswers
from plume.checks.tally import Tally
from plume.checks.wording import Ends
from plume.redact import PERSONAL, SECRETS, Marks
from plume.types import Example, Finding, Source


@dataclass
class Plan:
    """Rows to leave out, and repairs in the order of application with the rows that they are for (None: all)."""

    drop: dict[int, Finding]
    repairs: list[tuple[str, Repair, set[int] | None]]
    lines: array[int]  # the original line of each row
    pairs: bool  # every row is one question with its answer
    whole: list[str]  # what is put right by writing the rows anew


@dataclass
class _Seen:
    """What is noted of the rows while they are read."""

    selection: Selection
    excepted: Exceptions
    lines: array[int] = field(default_factory=lambda: array("q"))
    pairs: bool = True
    flagged: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    characters: Characters = field(default_factory=Characters)
    markup: Markup = field(default_factory=Markup)
    answers: JSONAnswers = field(default_factory=JSONAnswers)
    spacing: Spacing = field(default_factory=Spacing)
    ends: Ends = field(default_factory=Ends)
    repeats: Repeats = field(default_factory=Repeats)
    near: NearRepeats = field(default_factory=NearRepeats)
    long: set[int] = field(default_factory=set)  # conversations of several replies

    def excused(self, row: int | None, code: str) -> bool:
        return bool(row and (self.lines[row - 1], code) in self.excepted)

    def see(self, batch: Batch) -> None:
        for code, survey in (("D107", self.characters), ("D108", self.markup), ("D204", self.answers)):
            self._by_row(code, survey, batch)
        for whole in (self.spacing, self.ends, self.repeats, self.near):
            whole.see(batch)
        for found in echoes(batch):
            self.flagged["D206 on" if "goes on" in found.message else "D206 echo"].add(found.source.line or 0)
        self.flagged["D210"].update(found.source.line or 0 for found in personal_data(batch))
        if self.selection.names:
            self.flagged["D210"].update(found.source.line or 0 for found in listed_names(batch, self.selection.names))
        self.flagged["D211"].update(found.source.line or 0 for found in secrets(batch))
        for example in batch.examples:
            self.pairs = self.pairs and len(example.messages) == 2
            if len(example.messages) > 3:
                self.long.add(example.source.line or 0)

    def _by_row(self, code: str, survey: Any, batch: Batch) -> None:
        """Let a survey see a batch; where that found something, ask it about each row."""
        before = {kind: tally.count for kind, tally in _tallies(survey).items()}
        survey.see(batch)
        if before == {kind: tally.count for kind, tally in _tallies(survey).items()}:
            return
        for example in batch.examples:
            alone = type(survey)()
            alone.see(Batch(batch.file, [example]))
            for kind, tally in _tallies(alone).items():
                if tally.count:
                    self.flagged[f"{code} {kind}"].add(example.source.line or 0)

    def told(self, survey: Any, code: str) -> list[Finding]:
        """What a survey has to say, but for what is excepted."""
        if not self.selection.wants(code):
            return []
        return [f for f in survey.findings() if f.code == code and not self.excused(f.source.line, code)]


def _tallies(survey: Any) -> dict[str, Tally]:
    if isinstance(survey, JSONAnswers):
        return {"broken": survey.broken}
    tallies: dict[str, Tally] = survey.tallies
    return tallies


def plan(rows: Iterable[Row], file: str, selection: Selection, excepted: Exceptions, marks: Marks) -> Plan:
    """Read once; `excepted` are original lines with the codes that do not hold for them."""
    seen, superseded = _Seen(selection, excepted), Superseded()
    whole: dict[str, None] = {}

    def numbered() -> Iterator[Example]:
        for row in rows:
            whole.update((code, None) for code in row.whole if selection.wants(code))
            if row.example:
                seen.lines.append(row.line or 0)
                yield replace(row.example, source=Source(file, len(seen.lines)))

    examples = numbered()
    while several := list(islice(examples, 1000)):
        batch = Batch(file, several)
        seen.see(batch)
        superseded.see(Batch(file, [one for one in several if not seen.excused(one.source.line, "D203")]))
    drop = superseded.findings(file) if selection.wants("D203") else {}
    return Plan(drop or _again(seen), _repairs(seen, marks), seen.lines, seen.pairs, list(whole))


def _again(seen: _Seen) -> dict[int, Finding]:
    """Rows that repeat an earlier one; a conversation goes only where another holds every word of it."""
    found = {f.source.line: f for f in seen.told(seen.near, "D202") if f.source.line not in seen.long}
    found |= {f.source.line: f for f in seen.told(seen.repeats, "D201")}
    return {line: finding for line, finding in found.items() if line}


def _repairs(seen: _Seen, marks: Marks) -> list[tuple[str, Repair, set[int] | None]]:
    valid = {key for code, survey in _BY_ROW.items() for key in _reported(code, getattr(seen, survey))}
    valid |= {"D206 echo", "D206 on"}
    found: list[tuple[str, Repair, set[int] | None]] = []
    for key, repair in REPAIRS.items():
        if seen.flagged[key] and key in valid and seen.selection.wants(key[:4]):
            found.append((key[:4], repair, seen.flagged[key]))
    spaces = _spaces(seen)
    if spaces:
        found.append(("D107", each(lambda text: _respaced(text, spaces)), None))
    if affixes := _affixes(seen):
        found.append(("D208", ended(affixes), None))
    if orders := _orders(seen):
        found.append(("D205", ordered(orders), None))
    names = seen.selection.names
    for code, kinds in (("D211", tuple(SECRETS)), ("D210", (*PERSONAL, *(["name"] if names else [])))):
        if seen.flagged[code] and seen.selection.wants(code):
            found.append((code, private(kinds, names, marks), seen.flagged[code]))
    return found


_BY_ROW = {"D107": "characters", "D108": "markup", "D204": "answers"}


def _reported(code: str, survey: Any) -> Iterator[str]:
    """The kinds of fault that a survey speaks of once it has seen the whole file."""
    told = [(finding.source, finding.message) for finding in survey.findings()]
    for kind, tally in _tallies(survey).items():
        first = tally.first[0] if tally.first else None
        if first and any(source == first.source and message.startswith(first.message) for source, message in told):
            yield f"{code} {kind}"


def _spaces(seen: _Seen) -> dict[str, str]:
    """The rare spaces before a mark that were reported, with what stands there usually."""
    counts = seen.spacing.counts
    return {
        finding.quote: max((pair for pair in counts if pair[1] == finding.quote[1]), key=lambda pair: counts[pair])
        for finding in seen.told(seen.spacing, "D107")
    }


def _respaced(text: str, spaces: dict[str, str]) -> str:
    for odd, usual in spaces.items():
        text = text.replace(odd, usual)
    return text


def _affixes(seen: _Seen) -> list[Affix]:
    told = [finding.message for finding in seen.told(seen.ends, "D208")]
    return [
        Affix(
            "assistant" if name.startswith("answers") else "user",
            " end with " in name,
            form.quote if form.quote.isspace() else form.quote.strip(),
        )
        for name, form in seen.ends.forms.items()
        if any(f" {name}, " in message for message in told)
    ]


def _orders(seen: _Seen) -> dict[tuple[str, frozenset[str]], tuple[str, ...]]:
    """The most frequent order of every set of keys that was reported to stand in several."""
    if not any(" in the order " in finding.message for finding in seen.told(seen.answers, "D205")):
        return {}
    counted: dict[tuple[str, frozenset[str]], dict[tuple[str, ...], int]] = defaultdict(lambda: defaultdict(int))
    for outline, answers in seen.answers.outlines.items():
        todo: list[tuple[str, Any]] = [("", outline)]
        for path, item in todo:
            if isinstance(item, str):
                continue
            kind, names, inner = item
            if kind == "object":
                counted[path, frozenset(names)][names] += answers.count
                todo += [(f"{path}.{key}" if path else key, inside) for key, inside in zip(names, inner, strict=True)]
            else:
                todo += [(f"{path}[]", inside) for inside in inner]
    return {of: max(orders, key=lambda keys: orders[keys]) for of, orders in counted.items() if len(orders) > 1}


class Superseded:
    """D203: rows whose question has another answer further down."""

    def __init__(self) -> None:
        self.rows, self.questions, self.answers = array("q"), bytearray(), bytearray()

    def see(self, batch: Batch) -> None:
        for row, question, reply, *_ in asked(batch):
            self.rows.append(row)
            self.questions += question
            self.answers += similar.digest(unicodedata.normalize("NFC", reply))

    def findings(self, file: str) -> dict[int, Finding]:
        if not self.rows:
            return {}
        count = len(self.rows)
        same_question = first_equal(columns(self.questions)[::-1])
        last = count - 1 - same_question[::-1]
        answers = first_equal(columns(self.answers))
        found = {}
        for index in np.flatnonzero(answers != answers[last]).tolist():
            row, kept = self.rows[index], self.rows[int(last[index])]
            message = "a later row answers the same question otherwise"
            found[row] = Finding("D203", "error", Source(file, row), message, "keep one answer", (Source(file, kept),))
        return found
