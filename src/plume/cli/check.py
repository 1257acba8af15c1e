"""`plume check`: every finding about data files."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from plume.checks.run import Examined, examine
from plume.checks.splits import overlap
from plume.cli import options, output
from plume.types import Finding

EXAMPLES = (
    "Examples: plume check qa.jsonl · plume check train.jsonl --eval-data test.jsonl · plume check qa.jsonl --json"
)


def check(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Data files: JSON lines, a JSON array, or text.")
    ],
    eval_data: Annotated[str | None, typer.Option(metavar="FILE", help="Evaluation rows, checked for leaks.")] = None,
    split_documents: options.SplitDocuments = False,
    json: options.Json = False,
) -> None:
    """Name every mistake in data files, with its line, its reason and its fix.

    Exit code 0 when no finding is an error, 1 when one is, 2 when a file cannot be opened.
    """
    names = list(dict.fromkeys([*files, *([eval_data] if eval_data else [])]))
    examined = {name: examine(name, split_documents=split_documents) for name in names}
    findings = [
        finding
        for name, one in examined.items()
        for finding in one.findings
        if not (name == eval_data and finding.code == "D215" and one.examples)  # few questions may be asked
    ]
    if eval_data:
        train = [example for name in files for example in examined[name].examples]
        findings += overlap(train, examined[eval_data].examples)
    if json:
        output.write_json(_report(names, examined, findings))
    else:
        for finding in findings:
            output.show_finding(output.out, finding)
        output.write(_summary(examined, findings))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _report(names: list[str], examined: dict[str, Examined], findings: list[Finding]) -> dict[str, Any]:
    return {
        "files": names,
        "examples": sum(len(one.examples) for one in examined.values()),
        "findings": [output.finding_json(finding) for finding in findings],
        "summary": _counts(findings),
    }


def _counts(findings: list[Finding]) -> dict[str, int]:
    counted = Counter(finding.severity for finding in findings)
    return {"errors": counted["error"], "warnings": counted["warning"], "infos": counted["info"]}


def _summary(examined: dict[str, Examined], findings: list[Finding]) -> str:
    count = sum(len(one.examples) for one in examined.values())
    counts = _counts(findings)
    said = ", ".join(f"{number} {name[: -1 if number == 1 else None]}" for name, number in counts.items() if number)
    said = said or "nothing to say"
    return f"{count} example{'s' * (count != 1)} in {len(examined)} file{'s' * (len(examined) != 1)}: {said}"
