"""All checks over a file, batch by batch: the file is never held, unless its examples are asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from plume.checks import amount, answers, characters, duplicates, language, leftovers, private, shapes, wording
from plume.checks.rules import ROW_RULES, SURVEYS, Batch, RowRule, Survey
from plume.checks.scripts import examine_script
from plume.checks.selection import EVERYTHING, Selection, exceptions, kept
from plume.checks.splits import Taught
from plume.data.read import ONCE, read
from plume.data.records import Reading, shown
from plume.data.spool import Examples
from plume.types import Example, Finding

# Importing them registers their rules.
FAMILIES = (amount, answers, characters, duplicates, language, leftovers, private, shapes, wording)
SCRIPTS = (".py", ".ipynb")
LISTED = 10_000  # findings of one code and file that are listed; beyond, they are counted
_BATCH = 1000


@dataclass
class Examination:
    """What is known of the rows seen so far; examinations of consecutive parts of a file merge."""

    file: str
    selection: Selection
    examples: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    surveys: list[Survey] = field(default_factory=list)
    kept: Examples | None = None

    def __post_init__(self) -> None:
        wanted = {made for code, several in SURVEYS.items() if self.selection.wants(code) for made in several}
        # By name, since another process may have imported the families in another order.
        self.surveys = self.surveys or [made() for made in sorted(wanted, key=lambda made: made.__qualname__)]

    def add(self, finding: Finding) -> None:
        if self.selection.wants(finding.code):
            self.counts[finding.code] += 1
            if self.counts[finding.code] <= LISTED:
                self.findings.append(self.selection.apply(finding))

    def see(self, examples: Sequence[Example], rules: Sequence[RowRule]) -> None:
        """Put some consecutive rows before every rule."""
        batch = Batch(self.file, examples)
        for rule in rules:
            for finding in rule(batch):
                self.add(finding)
        if self.selection.names and self.selection.wants("D210"):
            for finding in private.listed_names(batch, self.selection.names):
                self.add(finding)
        for one in self.surveys:
            one.see(batch)
        self.examples += len(examples)
        if self.kept is not None:
            self.kept.extend(examples)

    def merge(self, later: Examination) -> None:
        said = {finding.message for finding in self.findings if finding.code in ONCE}
        listed = Counter(finding.code for finding in self.findings)
        for finding in later.findings:
            if finding.code in ONCE and finding.severity == "warning" and finding.message in said:
                later.counts[finding.code] -= 1
            else:
                listed[finding.code] += 1
                if listed[finding.code] <= LISTED:
                    self.findings.append(finding)
        self.counts += later.counts
        for mine, theirs in zip(self.surveys, later.surveys, strict=True):
            mine.merge(theirs)
        self.examples += later.examples


@dataclass(frozen=True, slots=True)
class Examined:
    """A file, read and checked. `examples` are there if they were to be kept; `counts` are of all findings by
    code, `findings` at most `LISTED` of each."""

    file: str
    count: int
    findings: tuple[Finding, ...]
    counts: Counter[str]
    examples: Sequence[Example] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")


def row_rules(selection: Selection) -> list[RowRule]:
    """The row rules that can give a wanted code, each once."""
    return list({rule: None for code, several in ROW_RULES.items() if selection.wants(code) for rule in several})


def see_rows(items: Iterable[Example | Finding], so_far: Examination) -> Generator[int, None, None]:
    """Read on; yields the last line seen after each batch."""
    rules = row_rules(so_far.selection)
    examples: list[Example] = []
    for item in items:
        if isinstance(item, Finding):
            so_far.add(item)
            continue
        examples.append(item)
        if len(examples) == _BATCH:
            so_far.see(examples, rules)
            yield item.source.line or 0
            examples = []
    if examples:
        so_far.see(examples, rules)


def conclude(so_far: Examination) -> Examined:
    """Let the surveys speak, leave out what is excepted, and put everything in file order."""
    for one in so_far.surveys:
        for finding in one.findings():
            so_far.add(finding)
    excepted = exceptions(so_far.file)
    findings = [found for found in so_far.findings if (found.source.line, found.code) not in excepted]
    findings.sort(key=lambda found: (found.source.line or 0, found.source.column or 0, found.code))
    return Examined(so_far.file, so_far.examples, tuple(findings), so_far.counts, so_far.kept or ())


def examine(
    path: str | os.PathLike[str],
    reading: Reading | None = None,
    selection: Selection = EVERYTHING,
    *,
    name: str | None = None,
    keep: bool = True,
) -> Examined:
    """Read a file, run every check, and keep its examples. Raises UserError when it cannot be opened."""
    file = os.fspath(path)
    so_far = Examination(name or shown(file), selection, kept=Examples() if keep else None)
    for _ in see_rows(read(file, reading, name=name), so_far):
        pass
    return conclude(so_far)


def batches(path: str, reading: Reading | None = None, *, name: str | None = None) -> Iterator[Batch]:
    """The rows of a file as rules see them, those that can be read."""
    rows = (item for item in read(path, reading, name=name) if isinstance(item, Example))
    while examples := list(islice(rows, _BATCH)):
        yield Batch(name or shown(path), examples)


def check(
    path: str | os.PathLike[str],
    *,
    eval_data: str | os.PathLike[str] | None = None,
    reading: Reading | None = None,
    selection: Selection = EVERYTHING,
) -> Iterator[Finding]:
    """Every finding about a data file or a training script, in file order; then what `eval_data` shares with it.

    Raises UserError when a file cannot be opened.

    >>> for finding in plume.check("qa.jsonl"):  # doctest: +SKIP
    ...     print(finding.source, finding.code, finding.message)
    """
    file = os.fspath(path)
    if Path(file).suffix.lower() in SCRIPTS:
        yield from (selection.apply(found) for found in examine_script(file) if selection.wants(found.code))
        return
    yield from examine(file, reading, selection, keep=False).findings
    if eval_data:
        other = os.fspath(eval_data)
        asked = examine(other, reading, selection, keep=False)
        yield from (found for found in asked.findings if found.code != "D215" or not asked.count)
        taught = Taught()
        for batch in batches(file, reading):
            taught.see(batch)
        yield from kept(taught.findings(batches(other, reading)), selection)
