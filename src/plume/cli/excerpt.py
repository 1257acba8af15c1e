"""The offending line of a finding, and where in it the caret goes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from plume.cli.pictures import visible
from plume.data.lines import is_file
from plume.redact import SECRETS, recognise
from plume.types import Finding

_LONGEST = 2**20  # bytes of a line that are looked at
_SECRET = "D211"
_PLAIN = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".text", ".md", ".py", ".ipynb", ".yaml", ".toml"}


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A physical line, the 1-based column of what is wrong in it, and its width in characters (0: not known)."""

    text: str
    column: int
    width: int

    def cropped(self, room: int) -> tuple[Text, int]:
        """As much of the line as fits, and how many cells stand before the caret."""
        text = visible(self.text.expandtabs(1))
        start = max(0, min(self.column - 1 - room // 3, len(text) - room))
        before, after = "…" * (start > 0), "…" * (start + room < len(text))
        shown = text[start + len(before) : start + room - len(after)]
        lead = before + shown[: max(0, self.column - 1 - start - len(before))]
        return Text(before + shown + after), cell_len(lead)


def excerpts(findings: Sequence[Finding]) -> list[Excerpt | None]:
    """For each finding its line, with `*` in place of secrets; None where there is no line to show."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for finding in findings:
        if finding.source.line:
            wanted[finding.source.file].add(finding.source.line)
    lines = {(file, number): text for file, numbers in wanted.items() for number, text in _lines(file, numbers)}
    masked = {place: _masked(text) for place, text in lines.items()}
    places = [(finding.source.file, finding.source.line or 0) for finding in findings]
    for finding, place in zip(findings, places, strict=True):
        if finding.code == _SECRET and masked.get(place) == lines.get(place):  # somewhere in it, one cannot say where
            masked[place] = None
    found = []
    for finding, place in zip(findings, places, strict=True):
        text = masked.get(place)
        excerpt = _place(finding, lines[place]) if text is not None else None
        found.append(replace(excerpt, text=text) if excerpt and text is not None else None)
    return found


def _masked(line: str) -> str | None:
    """The line with `*` for each character of a secret; None when a secret is in it in a spelling not known here."""
    secrets = {match.text for text in (line, *_strings(line)) for match in recognise(text, SECRETS)}
    found = [[text for text in _spellings(secret) if text in line] for secret in secrets]
    if not all(found):
        return None
    for text in sorted({text for several in found for text in several}, key=len, reverse=True):
        line = line.replace(text, "*" * len(text))
    return line


def _strings(line: str) -> Iterator[str]:
    """All strings of a line of JSON; none of a line of anything else."""
    try:
        left: list[Any] = [json.loads(line)] if line.lstrip()[:1] in ("{", "[") else []
    except (ValueError, RecursionError):
        return
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list)):
            left += value.values() if isinstance(value, dict) else value


def _spellings(text: str) -> tuple[str, ...]:
    """How a text may stand in a file: as it is, or within a JSON string."""
    return text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]


def _lines(file: str, numbers: set[int]) -> Iterator[tuple[int, str]]:
    path = Path(file)
    if path.suffix.lower() not in _PLAIN or not is_file(path):
        return
    last = max(numbers)
    with path.open("rb") as stream:
        number = 0
        while number < last and (raw := stream.readline(_LONGEST)):
            number += 1
            if number in numbers:
                yield number, raw.decode("utf-8", "replace").rstrip("\r\n").removeprefix("\ufeff")
            while len(raw) == _LONGEST and not raw.endswith(b"\n"):
                raw = stream.readline(_LONGEST)


def _place(finding: Finding, line: str | None) -> Excerpt | None:
    if line is None or not line.strip() or finding.code == _SECRET:
        return None
    for text in _spellings(finding.quote):
        found = line.find(text) if text.strip(" \t") else -1  # blanks are everywhere
        if found >= 0:
            return Excerpt(line, found + 1, len(text))
    if finding.source.column and finding.source.column <= len(line) + 1:
        return Excerpt(line, finding.source.column, 1)
    return Excerpt(line, 1, 0)
