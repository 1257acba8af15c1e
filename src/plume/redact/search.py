"""Looking for everything at once: where recognisers disagree, the earlier one wins."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from plume.redact.births import birth_dates
from plume.redact.marks import ANY
from plume.redact.match import Match, Recogniser
from plume.redact.names import Names, named
from plume.redact.personal import PERSONAL
from plume.redact.secrets import SECRETS

# A secret may contain what looks like an e-mail address or a number, so secrets come first; an earlier one wins.
_RECOGNISERS: dict[str, Recogniser] = {**SECRETS, **PERSONAL, "birth-date": birth_dates}


def recognise(text: str, kinds: Collection[str] | None = None, names: Names = frozenset()) -> Iterator[Match]:
    """Everything recognised, in order and without overlaps, in time linear in the text.

    `kinds` limits what is looked for (default: all of `KINDS`); names are found only if listed.
    """
    covered = bytearray(len(text))
    found: list[Match] = []
    for kind, recogniser in _RECOGNISERS.items():
        if kinds is None or kind in kinds:
            _add(found, covered, recogniser(text))
    if names and (kinds is None or "name" in kinds):
        for mark in ANY.finditer(text):
            covered[mark.start() : mark.end()] = b"\1" * len(mark[0])
        _add(found, covered, named(text, names))
    yield from sorted(found, key=lambda match: match.start)


def _add(found: list[Match], covered: bytearray, matches: Iterator[Match]) -> None:
    for match in matches:
        if covered.find(1, match.start, match.end) < 0:
            covered[match.start : match.end] = b"\1" * (match.end - match.start)
            found.append(match)
