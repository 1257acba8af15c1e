"""All checks over a file: the examples it holds and everything there is to say about them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from plume.checks.content import amount, contradictions, repeats
from plume.data.read import read
from plume.types import Example, Finding


@dataclass(frozen=True, slots=True)
class Examined:
    """A file, read and checked."""

    examples: tuple[Example, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")


def examine(path: str | os.PathLike[str], *, split_documents: bool = False) -> Examined:
    """Read a file and run every check. Raises UserError when it cannot be opened."""
    examples: list[Example] = []
    findings: list[Finding] = []
    for found in read(path, split_documents=split_documents):
        (findings if isinstance(found, Finding) else examples).append(found)  # type: ignore[arg-type]
    for check_rows in (repeats, contradictions):
        findings += check_rows(examples)
    findings += amount(examples, os.fspath(path))
    findings.sort(key=lambda finding: (finding.source.line or 0, finding.source.column or 0, finding.code))
    return Examined(tuple(examples), tuple(findings))


def check(path: str | os.PathLike[str], *, split_documents: bool = False) -> Iterator[Finding]:
    """Every finding about a data file, in file order.

    >>> for finding in plume.check("qa.jsonl"):  # doctest: +SKIP
    ...     print(finding.source, finding.code, finding.message)
    """
    yield from examine(path, split_documents=split_documents).findings
