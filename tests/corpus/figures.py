"""The corpus of broken and clean data files, and how well the doctor does on it.

Every file under `data/` has one fault, or none; `data/manifest.json` says which finding it must give and where.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import plume
from plume.types import Finding, Severity

DATA = Path(__file__).with_name("data")


@dataclass(frozen=True, slots=True)
class Expected:
    """A finding that must be given. `any` stands for findings about the whole file, wherever they are said."""

    code: str
    severity: Severity
    line: int | Literal["any"]

    def fits(self, finding: Finding) -> bool:
        return finding.code == self.code and self.line in ("any", finding.source.line)


@dataclass(frozen=True, slots=True)
class Case:
    """A file of the corpus, the evaluation file that goes with it if any, and what is to be said of it."""

    file: str
    expected: tuple[Expected, ...]
    why: str
    eval_data: str | None = None

    def findings(self) -> list[Finding]:
        return list(plume.check(DATA / self.file, eval_data=DATA / self.eval_data if self.eval_data else None))


def manifest() -> list[Case]:
    """All cases, in the order in which they are stored."""
    stored: list[dict[str, Any]] = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
    return [Case(**{**entry, "expected": tuple(Expected(**one) for one in entry["expected"])}) for entry in stored]


def missing(case: Case, findings: Iterable[Finding]) -> list[Expected]:
    """What should have been said and was not."""
    said = list(findings)
    return [
        expected
        for expected in case.expected
        if not any(expected.fits(finding) and expected.severity == finding.severity for finding in said)
    ]


def false_alarms(case: Case, findings: Iterable[Finding]) -> list[Finding]:
    """Errors and warnings of a code or line that the file does not deserve. Infos accuse nobody."""
    return [
        finding
        for finding in findings
        if finding.severity != "info" and not any(expected.fits(finding) for expected in case.expected)
    ]


def figures(cases: Iterable[Case]) -> dict[str, int]:
    """How many files have a fault, in how many it was named with code, severity and line; how many are clean, and
    of how many of these something bad was said."""
    counts = {"faults": 0, "named": 0, "clean": 0, "false_alarms": 0}
    for case in cases:
        findings = case.findings()
        if case.expected:
            counts["faults"] += 1
            counts["named"] += not missing(case, findings)
        else:
            counts["clean"] += 1
            counts["false_alarms"] += bool(false_alarms(case, findings))
    return counts
