"""Is an attribute gone from rows? Every key, text and number is searched for what should not be there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plume.data.listed import Listed, fold, fold_words
from plume.data.strip import Rules, texts_of

# Too common to say anything about one attribute.
_YES_NO = frozenset({"true", "false", "yes", "no", "oui", "non", "vrai", "faux", "none", "null", "aucun", "aucune"})


@dataclass(frozen=True, slots=True)
class Leak:
    """Something of the attribute that is left: the line in without.jsonl, the line in the source, the place.

    `kind` says what gave it away: the key itself, a pattern, a listed value, or a value that the removed field
    has in the same row (`own_value`) or in another one (`other_value`).
    """

    line: int
    source_line: int
    kind: Literal["key", "pattern", "listed", "own_value", "other_value"]
    where: str
    quote: str


def find_leaks(
    rows: Iterable[dict[str, Any]],
    source_lines: Sequence[int],
    rules: Rules,
    values: Sequence[tuple[int, Any]],
) -> tuple[list[Leak], list[str]]:
    """What is left in `rows`, and the removed values that could not be searched for.

    `values` are the source lines and values of the removed fields. Yes, no and the like are not searched for;
    a value of a single character only in the row it was removed from.
    """
    owners, unsearched = _owners(values)
    removed = Listed(owners)
    quoted_key = _quoted(rules)
    leaks = []
    for number, (row, source_line) in enumerate(zip(rows, source_lines, strict=True), 1):
        said = set()
        for where, text, is_key in texts_of(row):
            for kind, quote in _left(text, is_key, rules, quoted_key, removed, owners, source_line):
                if (kind, fold_words(quote)) not in said:
                    said.add((kind, fold_words(quote)))
                    leaks.append(Leak(number, source_line, kind, where, quote))
    return leaks, unsearched


def _left(
    text: str,
    is_key: bool,
    rules: Rules,
    quoted_key: re.Pattern[str] | None,
    removed: Listed,
    owners: dict[str, set[int]],
    line: int,
) -> Iterator[tuple[Any, str]]:
    if is_key and fold(text) in rules.fields:
        yield "key", text
    elif quoted_key and (found := quoted_key.search(fold(text))):
        yield "key", found.group()
    for start, end, rule in rules.spans(text):
        yield "listed" if rule == "value" else "pattern", text[start:end]
    for hit in removed.find(text):
        if line in owners[hit.value]:
            yield "own_value", text[hit.start : hit.end]
        elif len(hit.value) > 1:
            yield "other_value", text[hit.start : hit.end]


def _quoted(rules: Rules) -> re.Pattern[str] | None:
    """The key of an object that stands inside other text."""
    names = "|".join(re.escape(name) for name in sorted(rules.fields))
    return re.compile(rf"[\"']({names})[\"']\s*:") if names else None


def _owners(values: Sequence[tuple[int, Any]]) -> tuple[dict[str, set[int]], list[str]]:
    """Every form of every removed value, with the lines that had it; and the values too common to search for."""
    owners: dict[str, set[int]] = {}
    unsearched = set()
    for line, value in values:
        for leaf in _leaves(value):
            for form in _forms(leaf):
                if form in _YES_NO:
                    unsearched.add(form)
                elif any(map(str.isalnum, form)):
                    owners.setdefault(form, set()).add(line)
    return owners, sorted(unsearched)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _forms(value: Any) -> Iterator[str]:
    """The ways to write a value: numbers also with a decimal comma and with groups of three digits."""
    if value is None or isinstance(value, bool):
        yield json.dumps(value)
        return
    yield fold_words(value if isinstance(value, str) else json.dumps(value))
    if isinstance(value, int | float):
        text = json.dumps(value)
        yield text.replace(".", ",")
        if abs(value) >= 1000:
            yield f"{value:,}"
            yield f"{value:,}".replace(",", " ").replace(".", ",")
        if isinstance(value, float) and value.is_integer():
            yield json.dumps(int(value))
