"""Finding personal data and secrets that have a form of their own, and putting marks in their place.

What is found is what can be checked: a card by its check digit, an IBAN by its remainder, a telephone number by the
numbering plan. Names are found only when the person lists them. Nothing here guesses at free text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, MutableMapping

from plume.redact.births import birth_dates
from plume.redact.match import Match, Recogniser
from plume.redact.names import Names, listed, may_hold_name, named, read_names
from plume.redact.personal import PERSONAL, may_hold_personal
from plume.redact.secrets import SECRETS, may_hold_secret

__all__ = [
    "KINDS",
    "PERSONAL",
    "SECRETS",
    "Marks",
    "Match",
    "Names",
    "listed",
    "may_hold_name",
    "may_hold_personal",
    "may_hold_secret",
    "read_names",
    "recognise",
    "redact",
]

# A secret may contain what looks like an e-mail address or a number, so secrets come first; an earlier one wins.
_RECOGNISERS: dict[str, Recogniser] = {**SECRETS, **PERSONAL, "birth-date": birth_dates}

KINDS = (*_RECOGNISERS, "name")

Marks = MutableMapping[tuple[str, str], str]
"""The mark of each value seen, by kind and folded value. It holds what was removed: keep it as safe as the data."""

_MARK = re.compile(r"<(?:" + "|".join(KINDS) + r")-[0-9]{1,9}>")
_SEPARATORS = re.compile(r"[\s\u00a0\u202f.()/-]+")


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
        for mark in _MARK.finditer(text):
            covered[mark.start() : mark.end()] = b"\1" * len(mark[0])
        _add(found, covered, named(text, names))
    yield from sorted(found, key=lambda match: match.start)


def redact(
    text: str, kinds: Collection[str] | None = None, names: Names = frozenset(), marks: Marks | None = None
) -> str:
    """The text with every recognised value replaced by a mark of its kind: `<email-1>`, `<phone-2>`.

    The same value gets the same mark, numbers count from 1 in order of appearance, and a mark that the text already
    holds is not given to another value. Give the same `marks` to every call of a file to keep this true across its
    rows. Nothing is recognised in what comes back (for the same kinds and names), so redacting twice changes nothing.
    """
    marks = {} if marks is None else marks
    taken = {*marks.values(), *_MARK.findall(text)}
    last: dict[str, int] = {}
    while True:
        parts, end = [], 0
        for match in recognise(text, kinds, names):
            parts += [text[end : match.start], _mark(match, marks, taken, last)]
            end = match.end
        if not parts:
            return text
        # Once a neighbour is gone, digits may stand alone that were part of a longer row of them: look again.
        text = "".join([*parts, text[end:]])


def _mark(match: Match, marks: Marks, taken: set[str], last: dict[str, int]) -> str:
    secret = match.kind in SECRETS
    key = (match.kind, match.text if secret else _SEPARATORS.sub("", match.text).casefold())
    if key not in marks:
        number = last.get(match.kind, 0) + 1
        while (mark := f"<{match.kind}-{number}>") in taken:
            number += 1
        last[match.kind] = number
        marks[key] = mark
        taken.add(mark)
    return marks[key]


def _add(found: list[Match], covered: bytearray, matches: Iterator[Match]) -> None:
    for match in matches:
        if covered.find(1, match.start, match.end) < 0:
            covered[match.start : match.end] = b"\1" * (match.end - match.start)
            found.append(match)
