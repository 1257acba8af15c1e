"""Finding personal data and secrets that have a form of their own, and putting marks in their place.

What is found is what can be checked: a card by its check digit, an IBAN by its remainder, a telephone number by the
numbering plan. Names are found only when the person lists them. Nothing here guesses at free text.
"""

from __future__ import annotations

from collections.abc import Collection, MutableMapping

from plume.redact import json_view
from plume.redact.marks import KINDS, REPAIRED, same
from plume.redact.match import Match
from plume.redact.names import Names, listed, may_hold_name, read_names
from plume.redact.personal import PERSONAL, may_hold_personal
from plume.redact.redactor import GROUPS, Redaction, Redactor, redaction, restored
from plume.redact.search import recognise
from plume.redact.secrets import SECRETS, may_hold_secret

__all__ = [
    "GROUPS",
    "KINDS",
    "PERSONAL",
    "SECRETS",
    "Marks",
    "Match",
    "Names",
    "Redaction",
    "Redactor",
    "listed",
    "may_hold_name",
    "may_hold_personal",
    "may_hold_secret",
    "read_names",
    "recognise",
    "redact",
    "redact_json",
    "redaction",
    "restored",
]

Marks = MutableMapping[tuple[str, str], str]
"""The mark of each value seen, by kind and folded value. It holds what was removed: keep it as safe as the data."""


def redact(
    text: str, kinds: Collection[str] | None = None, names: Names = frozenset(), marks: Marks | None = None
) -> str:
    """The text with every recognised value replaced by a mark of its kind: `<email-1>`, `<phone-2>`.

    The same value gets the same mark, numbers count from 1 in order of appearance, and a mark that the text already
    holds is not given to another value. Give the same `marks` to every call of a file to keep this true across its
    rows. Nothing is recognised in what comes back (for the same kinds and names), so redacting twice changes nothing.
    """
    marks = {} if marks is None else marks
    taken = {*marks.values(), *REPAIRED.findall(text)}
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


def redact_json(text: str, kinds: Collection[str], names: Names, marks: Marks) -> str:
    """As `redact`, for a JSON text, which stays one: what its values read as is recognised, and a number of which
    something goes becomes a string."""
    taken, last = {*marks.values(), *REPAIRED.findall(text)}, dict[str, int]()
    before = None
    while text != before:
        before = text
        text = json_view.replaced(
            text, lambda read: recognise(read, kinds, names), lambda match: _mark(match, marks, taken, last)
        )
    return text


def _mark(match: Match, marks: Marks, taken: set[str], last: dict[str, int]) -> str:
    key = (match.kind, same(match.kind, match.text))
    if key not in marks:
        number = last.get(match.kind, 0) + 1
        while (mark := f"<{match.kind}-{number}>") in taken:
            number += 1
        last[match.kind] = number
        marks[key] = mark
        taken.add(mark)
    return marks[key]
