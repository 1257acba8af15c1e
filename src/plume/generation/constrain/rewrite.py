"""Patterns, formats and bounds said so that llguidance and validators mean the same by them.

Where they cannot be made equal, the rewritten schema allows less, never more.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

_SPACE = r"\t\n\v\f\r \u{a0}\u{feff}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}"
_LEAST = 1e-15  # stands for the smallest number above zero
_LARGEST_WHOLE = Decimal("9.22337203685477e18")  # the largest that llguidance can bound whole numbers with
_UP = Context(prec=15, rounding=ROUND_CEILING)
_PLAIN = 1e14  # below it numbers of 15 digits have decimals, and no two of them are read as one
_LARGEST = 1e300  # larger than any number that is ever written

_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"
_LABEL = r"[a-zA-Z0-9](-?[a-zA-Z0-9]){0,20}"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,4}}"
_PATH = r"(?:[a-zA-Z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})"
_TAIL = rf"(?:\?(?:{_PATH}|[:/?])*)?(?:#(?:{_PATH}|[:/?])*)?"
_AUTHORITY = r"//[a-zA-Z0-9.-]*(?::[0-9]{1,4})?"
_URI = rf"[a-zA-Z][a-zA-Z0-9+.-]*:(?:{_AUTHORITY}(?:/(?:{_PATH}|:)*)*|(?:{_PATH}|:)+(?:/(?:{_PATH}|:)*)*){_TAIL}"
_ABSOLUTE = rf"/(?:(?:{_PATH}|:)+(?:/(?:{_PATH}|:)*)*)?"
_REFERENCE = rf"{_URI}|(?:{_AUTHORITY}(?:/(?:{_PATH}|:)*)*|{_ABSOLUTE}|{_PATH}+(?:/(?:{_PATH}|:)*)*)?{_TAIL}"
_DAYS = (r"(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])", r"(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)")
_DATE = rf"[0-9]{{4}}-(?:{_DAYS[0]}|{_DAYS[1]}|02-(?:0[1-9]|1[0-9]|2[0-8]))"
_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_MAIL = rf"{_ATOM}(\.{_ATOM}){{0,2}}@{_HOST}"

# Formats by patterns of our own: some of llguidance's allow what validators do not (second 60, long labels).
PATTERNS = {
    "date": rf"(?:{_DATE}|{_LEAP})",
    "date-time": rf"(?:{_DATE}|{_LEAP})[tT]{_TIME}",
    "email": _MAIL,
    "hostname": _HOST,
    "idn-email": _MAIL,
    "idn-hostname": _HOST,
    "iri": _URI,
    "iri-reference": _REFERENCE,
    "json-pointer": r"(?:/(?:[^~/]|~[01])*)*",
    "relative-json-pointer": r"(?:0|[1-9][0-9]*)(?:#|(?:/(?:[^~/]|~[01])*)*)",
    "time": _TIME,
    "uri": _URI,
    "uri-reference": _REFERENCE,
}
KEPT = ("duration", "ipv4", "ipv6", "uuid")  # llguidance's own
UNWRITABLE = ("regex", "uri-template")


def pattern(text: str) -> str:
    """An ECMA-262 pattern in Rust's syntax, which reads a class within a class, `&&`, `~~` and `--` otherwise, and
    knows other spaces. Raises ValueError for `--` in a class."""
    found = []
    inside = False
    at = 0
    while at < len(text):
        piece = text[at]
        if piece == "\\":
            piece = text[at : at + 2]
            at += 1
            if piece == r"\s":
                piece = _SPACE if inside else f"[{_SPACE}]"
            elif piece == r"\S":
                piece = f"[^{_SPACE}]"
        elif inside and piece in "[&~":
            piece = "\\" + piece
        elif inside and text[at : at + 2] == "--":
            raise ValueError("-- within a class means a range to some and a difference to others")
        elif piece == "[":
            inside = True
            if text[at + 1 : at + 2] == "]":
                raise ValueError("[] matches nothing to some and begins a class to others")
        elif piece == "]":
            inside = False
        found.append(piece)
        at += 1
    return re.sub(r"\\u([0-9a-fA-F]{4})", r"\\u{\1}", "".join(found))


def bounds(schema: Mapping[str, Any], apart: bool) -> dict[str, Any]:
    """The bounds of a schema for numbers. llguidance lets an excluded bound through when the other bound is less than
    1 away: unless all are known to be `apart`, an exclusive one becomes the next number within. Raises ValueError for
    bounds that no number written keeps."""
    low, beyond_low = _lower(schema.get("minimum"), schema.get("exclusiveMinimum"), 1, apart)
    high, beyond_high = _lower(schema.get("maximum"), schema.get("exclusiveMaximum"), -1, apart)
    found = {"minimum": low, "exclusiveMinimum": beyond_low}
    found |= {
        name: None if bound is None else -bound
        for name, bound in (("maximum", high), ("exclusiveMaximum", beyond_high))
    }
    return {name: bound for name, bound in found.items() if bound is not None}


def apart(schema: Any) -> bool:
    """Is every lower bound in a schema at least 1 away from every upper one, wherever they stand? Then they are so in
    every part that is put together of others."""
    numbers = {key: set[float]() for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")}
    _gather(schema, numbers)
    lows = sorted(numbers["minimum"] | numbers["exclusiveMinimum"])
    highs = sorted(numbers["maximum"] | numbers["exclusiveMaximum"])
    decimals = [Decimal(repr(bound)) for bound in (*lows, *highs)]
    if not all(abs(bound) < _PLAIN and _UP.plus(bound) == bound for bound in decimals):
        return False
    after = (bisect.bisect_right(lows, high - 1) for high in highs)
    return all(at == len(lows) or lows[at] >= high + 1 for at, high in zip(after, highs, strict=True))


def _gather(schema: Any, numbers: dict[str, set[float]]) -> None:
    parts = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, part in parts:
        if isinstance(schema, dict) and key in numbers and _is_number(part):
            numbers[key].add(part)
        _gather(part, numbers)


def _lower(bound: Any, beyond: Any, sign: int, apart: bool) -> tuple[float | None, float | None]:
    """The lower bound that both make together, and the excluded one; upper ones are lower ones of the numbers with the
    other sign."""
    bounds = [sign * bound] if _is_number(bound) else []
    excluded = []
    if beyond is True:  # as draft 4 says it
        bounds, excluded = [], bounds
    elif _is_number(beyond):
        excluded = [sign * beyond]
    if apart and excluded:
        return (bounds[0] if bounds else None), excluded[0]
    bounds += [_above(near) for near in excluded]
    return (_inward(max(bounds)) if bounds else None), None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _above(bound: float) -> float:
    """The next larger number of 15 digits: one that no reader of decimals takes for the bound."""
    return float(_UP.next_plus(Decimal(repr(bound)))) if bound else _LEAST


def _inward(bound: float) -> float | None:
    """A lower bound as a number of 15 digits, or a whole one, that is no lower; None where every number keeps it."""
    if bound <= -_LARGEST:
        return None
    if abs(bound) < _LARGEST_WHOLE and bound == int(bound):
        near_bound = float(bound)
        return int(near_bound if near_bound >= bound else math.nextafter(near_bound, math.inf))
    near = _UP.plus(Decimal(repr(bound)))
    if near > _LARGEST_WHOLE:
        raise ValueError("numbers as large are not written")
    near = max(near, -_LARGEST_WHOLE)
    return int(near) if near == near.to_integral_value() else float(near)
