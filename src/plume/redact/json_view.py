"""A JSON text as the values in it read, with the way back: what is found in the values is replaced in the text.

Everything else stays as it was written, down to spaces and the form of numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from plume.redact.match import Match

_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9](?:[0-9.eE]|[eE][+-])*', re.DOTALL)
_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.")


class _Place(NamedTuple):
    """A literal: a string between its quotes, or a number; `start` and `end` count in the readable text."""

    start: int
    end: int
    string: bool


def is_json(text: str) -> bool:
    """Is it an object or an array?"""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def replaced(text: str, recognise: Callable[[str], Iterable[Match]], mark: Callable[[Match], str]) -> str:
    """The JSON text with a mark for each match; a number becomes a string. A mark holds no sign that JSON escapes."""
    readable, origins, places = _read(text)
    parts: list[str] = []
    done, next_place = 0, 0
    for match in recognise(readable):
        while next_place < len(places) and places[next_place].end <= match.start:
            next_place += 1
        for place in places[next_place:]:
            if place.start >= match.end:
                break
            start, end = (max(place.start, match.start), min(place.end, match.end)) if place.string else place[:2]
            if origins[start] < done:  # a number of which two parts were found
                continue
            quote = "" if place.string else '"'
            parts += [text[done : origins[start]], quote, mark(match), quote]
            done = origins[end]
    return "".join([*parts, text[done:]])


def _read(text: str) -> tuple[str, list[int], list[_Place]]:
    """The text with its escapes resolved, where each of its characters begins in `text`, and its literals."""
    readable: list[str] = []
    origins: list[int] = []
    places: list[_Place] = []

    def take(start: int, end: int) -> None:
        readable.extend(text[start:end])
        origins.extend(range(start, end))

    done = 0
    for literal in _LITERAL.finditer(text):
        take(done, literal.start())
        string = literal[0].startswith('"')
        start, end = (literal.start() + 1, literal.end() - 1) if string else literal.span()
        take(literal.start(), start)
        first, at = len(readable), start
        for escape in _ESCAPE.finditer(text, start, end) if string else ():
            take(at, escape.start())
            readable.append(json.loads(f'"{escape[0]}"'))
            origins.append(escape.start())
            at = escape.end()
        take(at, end)
        places.append(_Place(first, len(readable), string))
        take(end, literal.end())
        done = literal.end()
    take(done, len(text))
    return "".join(readable), [*origins, len(text)], places
