"""An attribute is removed from rows: keys of JSON, stretches that a pattern matches, listed values."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from plume.data.json_text import canonical
from plume.data.listed import Listed, fold

GONE: Final = object()
_FORM = ("prompt", "completion", "messages", "text")
_LOST = {"user": "question", "prompt": "question", "system": "system turn"}
_SPACE = " \t\u00a0\u202f"
_BRACKETS = {"(": ")", "[": "]", "«": "»", "“": "”", '"': '"'}


@dataclass(frozen=True, slots=True)
class Rules:
    """What to remove, ready to search: folded keys, compiled patterns, listed values."""

    fields: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()
    listed: Listed = field(default_factory=lambda: Listed(()))

    def spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Start, end and rule of every stretch to remove."""
        for pattern in self.patterns:
            yield from ((*found.span(), "pattern") for found in pattern.finditer(text) if found.group())
        yield from ((hit.start, hit.end, "value") for hit in self.listed.find(text))

    def hit(self, key: str) -> str | None:
        """The rule that removes a key together with what it holds."""
        return "field" if fold(key) in self.fields else next((rule for *_, rule in self.spans(key)), None)


@dataclass(frozen=True, slots=True)
class Removal:
    """One thing that was removed from a row: the rule, the place, and the value or text."""

    rule: str
    where: str
    value: Any


@dataclass(frozen=True, slots=True)
class Stripped:
    """A row after removal; `row` is None, with the reason, when nothing of it is worth learning."""

    row: dict[str, Any] | None
    removed: tuple[Removal, ...]
    reason: str = ""


def strip_row(row: dict[str, Any], rules: Rules) -> Stripped:
    """Remove from prompt, completion, messages or text (strings, as `Example` has them) and every other column.

    Texts come back in NFC and JSON answers in canonical form, so that `strip_row(row, Rules())` is the row
    itself, written in the same way. Raises RecursionError for values nested too deeply.
    """
    removed: list[Removal] = []
    kept: dict[str, Any] = {}
    lost: list[str] = []
    for name in sorted(row, key=lambda name: name not in _FORM):
        value = row[name]
        if name == "messages":
            kept[name] = [
                {**turn, "content": _strip_content(turn["content"], f"{name}[{place}].content", rules, removed)}
                for place, turn in enumerate(value)
            ]
            lost += [turn["role"] for turn in kept[name] if turn["content"] is GONE]
        elif name in _FORM:
            kept[name] = _strip_content(value, name, rules, removed)
            lost += [name] if kept[name] is GONE else []
        else:
            _strip_entry(name, value, name, rules, removed, kept)
    reason = f"the {_LOST.get(lost[0], 'answer')} held nothing but the attribute" if lost else ""
    return Stripped(None if lost else kept, tuple(removed), reason)


def texts_of(row: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Place, text and whether it is a key, of all that stands in a row: inside JSON first, then as raw text."""
    for name, value in row.items():
        if name == "messages":
            for place, turn in enumerate(value):
                yield from _texts_in(turn["content"], f"{name}[{place}].content")
        elif name in _FORM:
            yield from _texts_in(value, name)
        else:
            yield name, name, True
            yield from _texts_in(value, name)


def _texts_in(value: Any, where: str) -> Iterator[tuple[str, str, bool]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{where}.{key}", key, True
            yield from _texts_in(item, f"{where}.{key}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _texts_in(item, f"{where}[{place}]")
    elif isinstance(value, str):
        structure = _parse_whole(value)
        if structure is not None:
            yield from _texts_in(structure, where)
        yield where, value, False
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield where, json.dumps(value), False


def _parse_whole(text: str) -> Any:
    """The object or array that a text is, or None when it is anything else."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            canonical(value).encode()
    except (ValueError, RecursionError):  # not JSON, a number beyond a double, or half a surrogate pair
        return None
    return value


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits)
    return number


def _strip_content(text: str, where: str, rules: Rules, removed: list[Removal]) -> Any:
    """Text to learn from; GONE when neither letter nor digit is left of it."""
    before = len(removed)
    kept = _strip_text(text, where, rules, removed)
    return GONE if kept is GONE or (len(removed) > before and not any(map(str.isalnum, kept))) else kept


def _strip_entry(key: str, value: Any, where: str, rules: Rules, removed: list[Removal], into: dict[str, Any]) -> None:
    if rule := rules.hit(unicodedata.normalize("NFC", key)):
        removed.append(Removal(rule, where, value))
        return
    kept = _strip_value(value, where, rules, removed)
    if kept is not GONE:
        into[key] = kept


def _strip_value(value: Any, where: str, rules: Rules, removed: list[Removal]) -> Any:
    """The value without the attribute; GONE when nothing is left of it."""
    if isinstance(value, str):
        return _strip_text(value, where, rules, removed)
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for key, item in value.items():
            _strip_entry(key, item, f"{where}.{key}", rules, removed, kept)
        return kept if kept or not value else GONE
    if isinstance(value, list):
        items = [_strip_value(item, f"{where}[{place}]", rules, removed) for place, item in enumerate(value)]
        left = [item for item in items if item is not GONE]
        return left if left or not value else GONE
    if isinstance(value, int | float) and not isinstance(value, bool):
        for *_, rule in rules.spans(json.dumps(value)):
            removed.append(Removal(rule, where, value))
            return GONE
    return value


def _strip_text(text: str, where: str, rules: Rules, removed: list[Removal]) -> Any:
    text = unicodedata.normalize("NFC", text)
    structure = _parse_whole(text)
    if structure is not None:
        kept = _strip_value(structure, where, rules, removed)
        return GONE if kept is GONE else canonical(kept)
    whole = text
    while spans := list(rules.spans(text)):  # what comes together where a stretch was may match again
        start, end, rule = min(spans, key=lambda span: (span[0], -span[1]))
        removed.append(Removal(rule, where, text[start:end]))
        text = _join(text[:start], text[end:])
    return GONE if not text.strip() and whole.strip() else text


def _join(left: str, right: str) -> str:
    """Two halves without the hole between them: no doubled space or comma, no empty brackets."""
    before, after = left.rstrip(_SPACE), right.lstrip(_SPACE)
    spaced = before != left or after != right
    if before and after and _BRACKETS.get(before[-1]) == after[0]:
        return _join(before[:-1], after[1:])
    if before[-1:] in (",", ";") and after[:1] in (",", ";", "."):
        return _join(before[:-1], right)
    if not before or not after or "\n" in (before[-1], after[0]) or after[0] in ",.)]…" or before[-1] in "([":
        return before + after
    if after[0] in "?!:;»":  # French sets a space before these, and keeps its kind
        return before + right[: len(right) - len(after)] + after
    return f"{before} {after}" if spaced else before + after
