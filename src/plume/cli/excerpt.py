"""The offending line of a finding, and where in it the caret goes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len
from rich.text import Text

from plume.types import Finding

_LONGEST = 2**20  # bytes of a line that are looked at
_SECRET = "D211"  # never shown
_PLAIN = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".text", ".md", ".py", ".ipynb", ".yaml", ".toml"}


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A physical line, the 1-based column of what is wrong in it, and its width in characters (0: not known)."""

    text: str
    column: int
    width: int

    def cropped(self, room: int) -> tuple[Text, int]:
        """As much of the line as fits, and how many cells stand before the caret."""
        text = self.text.expandtabs(1)
        start = max(0, min(self.column - 1 - room // 3, len(text) - room))
        before, after = "…" * (start > 0), "…" * (start + room < len(text))
        shown = text[start + len(before) : start + room - len(after)]
        lead = before + shown[: max(0, self.column - 1 - start - len(before))]
        return Text(before + shown + after), cell_len(lead)


def excerpts(findings: Sequence[Finding]) -> list[Excerpt | None]:
    """For each finding its line; None where there is no line to show."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for finding in findings:
        if finding.source.line and finding.code != _SECRET:
            wanted[finding.source.file].add(finding.source.line)
    lines = {(file, number): text for file, numbers in wanted.items() for number, text in _lines(file, numbers)}
    return [_place(finding, lines.get((finding.source.file, finding.source.line or 0))) for finding in findings]


def _lines(file: str, numbers: set[int]) -> Iterator[tuple[int, str]]:
    path = Path(file)
    if path.suffix.lower() not in _PLAIN or not path.is_file():
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
    for text in (finding.quote, json.dumps(finding.quote, ensure_ascii=False)[1:-1], json.dumps(finding.quote)[1:-1]):
        found = line.find(text) if text else -1
        if found >= 0:
            return Excerpt(line, found + 1, len(text))
    if finding.source.column and finding.source.column <= len(line) + 1:
        return Excerpt(line, finding.source.column, 1)
    return Excerpt(line, 1, 0)
