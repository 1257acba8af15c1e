"""The labelled set of redaction, and how much of it is found: a span counts when its kind and both ends are right."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from plume.redact import SECRETS, listed, recognise

FOLDER = Path(__file__).parent / "redaction"
PARTS = ("development", "held_out", "fresh", "requests", "again", "pasted", "everyday", "later", "last")
_LABELS = {"birth-date": "birth", "url-credentials": "url", "password": "password"}


@dataclass(frozen=True, slots=True)
class Counts:
    """Spans by kind: found as labelled, not found, and found where there is none."""

    right: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def recall(self, *kinds: str) -> float:
        right, missed = (sum(one[kind] for kind in kinds) for one in (self.right, self.missed))
        return right / (right + missed) if right + missed else 1.0

    def precision(self, *kinds: str) -> float:
        right, wrong = (sum(one[kind] for kind in kinds) for one in (self.right, self.wrong))
        return right / (right + wrong) if right + wrong else 1.0

    def f1(self, *kinds: str) -> float:
        recall, precision = self.recall(*kinds), self.precision(*kinds)
        return 2 * recall * precision / (recall + precision) if recall + precision else 0.0

    @property
    def kinds(self) -> list[str]:
        return sorted({*self.right, *self.missed, *self.wrong})

    @property
    def structured(self) -> list[str]:
        """Every kind that has a form; names are those of a list."""
        return [kind for kind in self.kinds if kind != "name"]


def scores(part: str) -> Counts:
    """The counts of one part of the set."""
    path = FOLDER / f"{part}_names.txt"
    names = listed(path.read_text(encoding="utf-8").splitlines()) if path.exists() else frozenset()
    counts = Counts()
    for line in (FOLDER / f"{part}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text = "".join(row["text"])  # in pieces, so that no key stands in the file
        labelled = {(kind, start, end) for kind, start, end in row["spans"]}
        found = {(_label(match.kind), match.start, match.end) for match in recognise(text, names=names)}
        for counter, spans in (
            (counts.right, labelled & found),
            (counts.missed, labelled - found),
            (counts.wrong, found - labelled),
        ):
            counter.update(kind for kind, _, _ in spans)
    return counts


def _label(kind: str) -> str:
    return _LABELS.get(kind, "key" if kind in SECRETS else kind)
