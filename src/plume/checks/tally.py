"""What surveys share: the rows that one complaint concerns, and a fair sample of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, Self, TypeVar

from plume.checks.rules import Batch
from plume.types import Example, Finding

_KEPT = 100  # findings remembered word for word
_NAMED = 5  # other rows that one finding for many names
_SPREAD, _WORD = 2654435761, 1 << 32  # Knuth's multiplicative hash of a line number

T = TypeVar("T")


def quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def share(count: int, rows: int) -> str:
    return f"{count} of {rows} ({100 * count / rows:.0f} %)"


@dataclass
class Tally:
    """The rows that one complaint concerns: each is named, unless it is most of the file or too many to read."""

    count: int = 0
    first: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding | Callable[[], Finding]) -> None:
        """Note a row; a function is called only while findings are kept."""
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(finding if isinstance(finding, Finding) else finding())

    def merge(self, later: Self) -> None:
        self.count += later.count
        self.first = (self.first + later.first)[:_KEPT]

    def findings(self, rows: int) -> Iterator[Finding]:
        """One finding a row, or one at the first row that says how many of `rows` are concerned."""
        if self.count <= 3 or (self.count == len(self.first) and 2 * self.count <= rows):
            yield from self.first
            return
        others = tuple(finding.source for finding in self.first[1 : _NAMED + 1])
        message = f"{self.first[0].message}; the same holds for {share(self.count, rows)} rows"
        yield replace(self.first[0], message=message, related=others)


@dataclass
class Sample(Generic[T]):
    """At most `size` rows, spread over the file, the same ones however the file is cut into batches."""

    size: int
    limit: int = _WORD
    kept: dict[int, T] = field(default_factory=dict)

    def rows(self, batch: Batch) -> list[tuple[int, Example]]:
        """The rows of a batch to look at, with the line to `keep` them under."""
        lines = [example.source.line or 0 for example in batch.examples]
        return [
            (line, example)
            for line, example in zip(lines, batch.examples, strict=True)
            if line * _SPREAD % _WORD < self.limit
        ]

    def keep(self, line: int, value: T) -> None:
        if line * _SPREAD % _WORD < self.limit:
            self.kept[line] = value
            while len(self.kept) > self.size:
                self._halve()

    def merge(self, later: Self) -> None:
        limit = min(self.limit, later.limit)
        self.kept |= later.kept
        while self.limit > limit or len(self.kept) > self.size:
            self._halve()

    def _halve(self) -> None:
        self.limit //= 2
        self.kept = {line: value for line, value in self.kept.items() if line * _SPREAD % _WORD < self.limit}
