"""Findings for a person: the place, the reason, the offending line with a caret, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from plume.checks.catalogue import CATALOGUE
from plume.checks.run import LISTED, Examined
from plume.cli.excerpt import Excerpt, excerpts
from plume.cli.pictures import visible
from plume.types import Finding, Severity

COLOURS: dict[Severity, str] = {"error": "red", "warning": "yellow", "info": "cyan"}
_SHOWN = 20  # findings of one code in one file; the rest is counted
_MARGIN = 4


def show(console: Console, findings: Sequence[Finding]) -> None:
    """Findings in the order given, at most `_SHOWN` of a code and file."""
    seen: Counter[tuple[str, str]] = Counter()
    shown = []
    for finding in findings:
        seen[finding.source.file, finding.code] += 1
        if seen[finding.source.file, finding.code] <= _SHOWN:
            shown.append(finding)
    for finding, excerpt in zip(shown, excerpts(shown), strict=True):
        _show_one(console, finding, excerpt)
    for (file, code), count in seen.items():
        if count > _SHOWN:
            console.print(f"[dim]… and {count - _SHOWN} more {code} in {escape(file)}: --json lists them[/]")


def _show_one(console: Console, finding: Finding, excerpt: Excerpt | None) -> None:
    colour = COLOURS[finding.severity]
    head = f"[{colour}]{finding.severity}[/] [bold]{escape(visible(str(finding.source)))}[/] {finding.code}"
    console.print(f"{head} {escape(visible(finding.message))}")
    if excerpt and (excerpt.width or finding.severity != "info"):
        line, lead = excerpt.cropped(max(40, console.width - _MARGIN - 1))
        console.print(Text(" " * _MARGIN) + line, soft_wrap=True)
        if excerpt.width:
            marks = "^" * max(1, min(excerpt.width, console.width - _MARGIN - lead))
            console.print(Text(" " * (_MARGIN + lead)) + Text(marks, style=colour), soft_wrap=True)
    console.print(f"    [dim]{escape(visible(finding.hint))}[/]")


def tally(examined: Sequence[Examined], findings: Sequence[Finding]) -> Counter[tuple[str, Severity]]:
    """How many findings there are of each code and severity; those that were counted but not listed weigh as most
    of those of their code that were."""
    found = Counter((finding.code, finding.severity) for finding in findings)
    for one in examined:
        for code, count in one.counts.items():
            if count > LISTED:
                listed = Counter(finding.severity for finding in one.findings if finding.code == code)
                for severity, _ in listed.most_common(1):
                    found[code, severity] += count - LISTED
    return found


def show_summary(console: Console, examined: Sequence[Examined], findings: Sequence[Finding]) -> None:
    """One line a code, worst first, and how many rows there were."""
    order = list(COLOURS)
    worst: dict[str, Severity] = {}
    numbers: Counter[str] = Counter()
    for (code, severity), number in tally(examined, findings).items():
        worst[code] = min(severity, worst.get(code, severity), key=order.index)
        numbers[code] += number
    table = Table(box=None, show_header=False, padding=(0, 1))
    for code in sorted(worst, key=lambda code: (order.index(worst[code]), code)):
        entry = CATALOGUE[code]
        severity_shown = f"[{COLOURS[worst[code]]}]{worst[code]}[/]"
        table.add_row(code, severity_shown, str(numbers[code]), entry.title, "[dim]fixable[/]" if entry.fixable else "")
    if worst:
        console.print()
        console.print(table)


def told(examined: Sequence[Examined], findings: Sequence[Finding]) -> str:
    """The last line: how much was read and how it went."""
    rows, files = sum(one.count for one in examined), len(examined)
    by_severity: Counter[str] = Counter()
    for (_, severity), number in tally(examined, findings).items():
        by_severity[severity] += number
    names = {"error": "error", "warning": "warning", "info": "remark"}
    said = [_number(by_severity[key], name) for key, name in names.items() if by_severity[key]]
    return f"{_number(rows, 'example')} in {_number(files, 'file')}: {', '.join(said) or 'nothing to say'}"


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"
