"""JSON with positions: values with the line they start on, or the exact place and cause of a fault.

Reads JSON lines and pretty-printed objects one after another, lazily; `json_array` reads one JSON array.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from plume.data.json_fault import Fault, constant_fault, fault, place, too_deep, trailing_fault
from plume.data.lines import MAX_LINE, Line
from plume.types import Finding

_MAX_SPAN = 200
_MAX_DIGITS = 308  # every integer that short is within a double


@dataclass(frozen=True, slots=True)
class Value:
    """A value, the line where it starts, and how it stood in the file.

    `layout` is "line", "array", "spread" (one object over several lines) or "table" (a row of columns).
    """

    value: Any
    line: int
    layout: str
    duplicate_keys: tuple[str, ...] = ()
    huge_numbers: tuple[str, ...] = ()


class NotJSON(ValueError):
    """NaN, Infinity or -Infinity where a value is due."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Strict:
    """One parse that also notes repeated keys and numbers that no double can hold."""

    def __init__(self) -> None:
        self.duplicates: list[str] = []
        self.huge: list[str] = []
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=_constant,
            parse_float=self._float,
            parse_int=self._int,
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            self.duplicates += [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        return result

    def _int(self, digits: str) -> float:
        return int(digits) if len(digits) <= _MAX_DIGITS else self._float(digits)

    def _float(self, digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            self.huge.append(digits)
        return number


def _constant(name: str) -> Any:
    raise NotJSON(name)


_strict = _Strict()  # one parse at a time: what it noted is taken before the next


def decode(text: str, start: int, line: int, layout: str) -> tuple[Value, int]:
    """The value that begins at `start` and where it ends. Raises ValueError or RecursionError."""
    _strict.duplicates, _strict.huge = [], []
    value, end = _strict.decoder.raw_decode(text, start)
    return Value(value, line, layout, tuple(_strict.duplicates), tuple(_strict.huge)), end


def values(lines: Iterator[Line | Finding]) -> Iterator[Value | Fault | Finding]:
    """Every JSON value of some lines, in order. A fault in a line costs that line only."""
    ahead: deque[Line | Finding] = deque()
    while True:
        item = ahead.popleft() if ahead else next(lines, None)
        if item is None:
            return
        if isinstance(item, Finding):
            yield item
            continue
        text = item.text.rstrip("\r")
        if not text or text.isspace():
            continue
        found = _one_line(text, item.number)
        if isinstance(found, Fault):
            span = 1
            if _may_go_on(text):
                _fill(ahead, lines, MAX_LINE - len(text))
                found, span = _several_lines([text, *_texts(ahead)], item.number, found)
                for _ in range(span - 1):
                    ahead.popleft()
            if isinstance(found, Fault):
                found = replace(found, spoilt=(item.number, item.number + span - 1))
        yield found


def _fill(ahead: deque[Line | Finding], lines: Iterator[Line | Finding], room: int) -> None:
    """Look at as many further lines as one row may span."""
    room -= sum(len(item.text) for item in ahead if isinstance(item, Line))
    while len(ahead) < _MAX_SPAN - 1 and room > 0:
        item = next(lines, None)
        if item is None:
            return
        ahead.append(item)
        room -= len(item.text) if isinstance(item, Line) else room


def _texts(ahead: deque[Line | Finding]) -> Iterator[str]:
    for item in ahead:
        if isinstance(item, Finding):
            return
        yield item.text


def _one_line(line: str, number: int) -> Value | Fault:
    start = len(line) - len(line.lstrip())
    try:
        value, end = decode(line, start, number, "line")
    except NotJSON as error:
        return constant_fault(line, start, error.name, number)
    except json.JSONDecodeError as error:
        return fault(line, error.pos, error.msg, number)
    except RecursionError:
        return too_deep(number)
    rest = line[end:].strip()
    if rest:
        column = end + len(line[end:]) - len(line[end:].lstrip()) + 1
        return trailing_fault(rest, number, column)
    return value


def _may_go_on(line: str) -> bool:
    start = len(line) - len(line.lstrip())
    return line.startswith("{", start) and _runs_on(line, start)


def _several_lines(lines: list[str], number: int, first: Fault) -> tuple[Value | Fault, int]:
    """A value that goes on over the next lines: pretty-printed, or cut by a raw line break in a string."""
    joined = lines[0]
    start = len(joined) - len(joined.lstrip())
    margin = joined[:start]
    count = 1
    for line in lines[1:]:
        if line.startswith(margin + "{") and not joined.rstrip().endswith(("[", ",", ":")):
            break  # a new row begins here
        joined += "\n" + line
        count += 1
        try:
            value, end = decode(joined, start, number, "spread")
            if not joined[end:].strip():
                return value, count
        except (ValueError, RecursionError):
            pass
        if _parses_with_raw_newlines(joined, start) or line.rstrip(" \t\r,") in (margin + "}", margin + "]}"):
            return _first_fault(joined, start, number), count
    if lines[0].strip() == "{":  # nothing of it stands on one line: the whole is one fault
        return _first_fault(joined, start, number), count
    return first, 1


def _runs_on(line: str, start: int) -> bool:
    """Is the text good as far as it goes?"""
    try:
        decode(line, start, 1, "line")
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string") or not line[error.pos :].strip()
    except (ValueError, RecursionError):
        pass
    return False


def _first_fault(text: str, start: int, first_line: int) -> Fault:
    try:
        _, end = decode(text, start, first_line, "spread")
    except NotJSON as error:
        return constant_fault(text, start, error.name, first_line)
    except json.JSONDecodeError as error:
        return fault(text, error.pos, error.msg, first_line)
    except RecursionError:
        return too_deep(first_line)
    rest = text[end:].lstrip()
    line, column = place(text, len(text) - len(rest))
    return trailing_fault(rest.rstrip(), line + first_line - 1, column)


def _parses_with_raw_newlines(text: str, start: int) -> bool:
    try:
        _, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return False
    return not text[end:].strip()


def canonical(value: Any) -> str:
    """One text for one JSON value: sorted keys, no spaces, no escapes but the necessary (after RFC 8785)."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
