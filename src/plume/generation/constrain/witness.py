"""Short texts that probably match the patterns and formats of a schema: guesses, for the search of an ending to try."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "duration": "P0D",
    "email": "a@a",
    "hostname": "a",
    "ipv4": "0.0.0.0",
    "ipv6": "::",
    "json-pointer": "",
    "relative-json-pointer": "0",
    "time": "00:00:00Z",
    "uri": "a:a",
    "uri-reference": "",
    "uuid": "00000000-0000-0000-0000-000000000000",
}
_MOST = 200  # guesses
_LONGEST = 10_000  # characters of one
_CATEGORIES = {
    codes.CATEGORY_DIGIT: "0",
    codes.CATEGORY_WORD: "a",
    codes.CATEGORY_SPACE: " ",
    codes.CATEGORY_NOT_DIGIT: "a",
    codes.CATEGORY_NOT_WORD: "-",
    codes.CATEGORY_NOT_SPACE: "a",
}


def witnesses(schema: Any) -> tuple[bytes, ...]:
    """What may stand between quotation marks, as JSON, shortest first."""
    found = {json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace") for text in _texts(schema)}
    return tuple(sorted(found, key=lambda text: (len(text), text)))[:_MOST]


def _texts(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for part in schema:
            yield from _texts(part)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("format"), str) and schema["format"] in _FORMATS:
        yield _FORMATS[schema["format"]]
    least = schema.get("minLength", 0)
    patterns = [schema.get("pattern"), *(schema.get("patternProperties") or {})]
    for pattern in patterns:
        text = match(pattern, least) if isinstance(pattern, str) and isinstance(least, int) else None
        if text is not None:
            yield text
    for part in schema.values():
        yield from _texts(part)


def match(pattern: str, least: int = 0) -> str | None:
    """A short text of at least so many characters that the pattern probably matches; None when it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parser.parse(re.sub(r"\(\?<(?=\w)", "(?P<", pattern).replace("\\/", "/"))
        parts = list(_parts(tree))
    except (re.error, RecursionError, OverflowError, ValueError):
        return None
    short = least - sum(len(text) for text, _ in parts)
    for at, (text, more) in enumerate(parts):
        if short > 0 and more:
            parts[at] = (text + more * -(-short // len(more)), more)
            short = 0
    return "".join(text for text, _ in parts) + "a" * max(0, short)


def _parts(tree: Any) -> Iterator[tuple[str, str]]:
    """Pieces of a match, each with what may be repeated behind it."""
    for code, value in tree:
        if code is codes.LITERAL:
            yield chr(value), ""
        elif code is codes.NOT_LITERAL:
            yield ("a" if value != ord("a") else "b"), ""
        elif code is codes.ANY:
            yield "a", ""
        elif code is codes.IN:
            yield _member(value), ""
        elif code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            least, most, inner = value
            unit = "".join(text for text, _ in _parts(inner))
            if least * len(unit) > _LONGEST:
                raise ValueError("too long")
            yield unit * least, unit if most is codes.MAXREPEAT else ""
        elif code is codes.SUBPATTERN:
            yield from _parts(value[3])
        elif code is codes.BRANCH:
            yield from min(
                (list(_parts(branch)) for branch in value[1]), key=lambda parts: sum(len(t) for t, _ in parts)
            )


def _member(items: Any) -> str:
    """A character of a class, a letter or digit where there is one."""
    negated = items and items[0][0] is codes.NEGATE
    for character in "a0A-_ .:/@#+" if negated else "":
        if not any(_holds(item, character) for item in items[1:]):
            return character
    first = items[0]
    if first[0] is codes.LITERAL:
        return chr(first[1])
    if first[0] is codes.RANGE:
        return chr(first[1][0])
    if first[0] is codes.CATEGORY:
        return _CATEGORIES.get(first[1], "a")
    return "~"


def _holds(item: Any, character: str) -> bool:
    code, value = item
    if code is codes.LITERAL:
        return bool(chr(value) == character)
    if code is codes.RANGE:
        return bool(value[0] <= ord(character) <= value[1])
    return bool(code is codes.CATEGORY and _CATEGORIES.get(value, character) == character)
