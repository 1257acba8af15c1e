"""What a grammar of JSON cannot say: no key twice in an object, and no number that reading would change.

States are values, so that going back costs nothing. The text is taken to be JSON; llguidance sees to that.
"""

from __future__ import annotations

import json
from typing import NamedTuple

_LONGEST = 64  # characters of a number
_WHOLE = 30  # digits of a whole number
_POWER = 200  # of ten
_PART = frozenset(b"0123456789.eE+-")


class Frame(NamedTuple):
    """An open object with the keys it has, or an open array with how many commas it has (`keys` is None). `depth`
    counts what is open around it."""

    parent: Frame | None
    keys: tuple[str, ...] | None
    items: int
    depth: int


class Place(NamedTuple):
    """Where a text of JSON stands. `mode`: between tokens `-`, before a key `,`, inside a key `k`, a string `s`
    or a number `n`; `text` is the key or number so far, in a string nothing. `escaped`: a backslash went before."""

    frame: Frame | None = None
    mode: str = "-"
    text: bytes = b""
    escaped: bool = False
    digits: int = 17


def step(place: Place, byte: int) -> Place | None:
    """The place after one more byte, or None where that would repeat a key or make a number unreadable."""
    frame, mode, text, escaped, digits = place
    if mode == "s":
        if escaped or byte == 0x5C:
            return Place(frame, "s", b"", not escaped, digits)
        return Place(frame, "-", b"", False, digits) if byte == 0x22 else place
    if mode == "k":
        if escaped or byte != 0x22:
            return Place(frame, "k", text + bytes([byte]), not escaped and byte == 0x5C, digits)
        return _keyed(place)
    if mode == "n" and byte in _PART:
        text += bytes([byte])
        return Place(frame, "n", text, False, digits) if _readable(text, digits) else None
    if byte == 0x22:
        return Place(frame, "k" if mode == "," else "s", b"", False, digits)
    if byte in b"-0123456789":
        return Place(frame, "n", bytes([byte]), False, digits)
    if byte == 0x7B:
        return Place(_opened(frame, ()), ",", b"", False, digits)
    if byte == 0x5B:
        return Place(_opened(frame, None), "-", b"", False, digits)
    if byte in b"}]":
        return Place(frame.parent if frame else None, "-", b"", False, digits)
    if byte == 0x2C and frame:
        if frame.keys is None:
            return Place(frame._replace(items=frame.items + 1), "-", b"", False, digits)
        return Place(frame, ",", b"", False, digits)
    return place if mode != "n" else Place(frame, "-", b"", False, digits)


def walk(place: Place | None, piece: bytes) -> Place | None:
    for byte in piece:
        if place is None:
            return None
        place = step(place, byte)
    return place


def watched(place: Place) -> bool:
    """Could the next token be one that `step` forbids, though the grammar allows it?"""
    if place.mode == "n":
        return len(place.text) > 8 or b"e" in place.text.lower()
    frame = place.frame
    while frame:
        if frame.keys:
            return True
        frame = frame.parent
    return False


def _opened(parent: Frame | None, keys: tuple[str, ...] | None) -> Frame:
    return Frame(parent, keys, 0, parent.depth + 1 if parent else 0)


def _keyed(place: Place) -> Place | None:
    frame = place.frame
    if frame is None or frame.keys is None:
        return None
    try:
        key = json.loads(b'"' + place.text + b'"')
    except ValueError:
        return None
    if key in frame.keys:
        return None
    return Place(frame._replace(keys=(*frame.keys, key)), "-", b"", False, place.digits)


def _readable(text: bytes, digits: int) -> bool:
    """Can a number that begins like this be read as a float without being changed to another one's value?"""
    mantissa, _, power = text.lower().partition(b"e")
    count = sum(character in b"0123456789" for character in mantissa.lstrip(b"-0."))
    whole = b"." not in mantissa and b"e" not in text.lower()
    if len(text) > _LONGEST or count > (_WHOLE if whole else digits):
        return False
    if mantissa.endswith(b".") and count >= digits:
        return False
    return abs(int(power.strip(b"+-") or 0)) <= _POWER
