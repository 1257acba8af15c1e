"""JSON with positions: values with the line they start on, or the exact place and cause of a fault.

Reads JSON lines, one JSON array, and pretty-printed objects one after another, whatever the file is called.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MAX_SPAN = 200
_MAX_DIGITS = 308  # every integer that short is within a double


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value, the line where it starts, and how it stood in the file."""

    value: Any
    line: int
    layout: str  # "line", "array" or "spread" (one object over several lines)
    duplicate_keys: tuple[str, ...] = ()
    huge_numbers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Text that is not JSON: where, what is wrong, and what to do."""

    line: int
    column: int
    reason: str
    hint: str


def values(text: str) -> Iterator[Value | Fault]:
    """Every JSON value of a file, in order. A fault in a line costs that line only."""
    body = text.lstrip(" \t\r\n")
    if body.startswith("["):
        yield from _array(text, len(text) - len(body))
    else:
        yield from _lines(text)


class _Strict:
    """One parse that also notes repeated keys and numbers that no double can hold."""

    def __init__(self) -> None:
        self.duplicates: list[str] = []
        self.huge: list[str] = []
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=self._int,
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                self.duplicates.append(key)
            result[key] = value
        return result

    def _constant(self, name: str) -> Any:
        raise _NotJSON(name)

    def _int(self, digits: str) -> float:
        return int(digits) if len(digits) <= _MAX_DIGITS else self._float(digits)

    def _float(self, digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            self.huge.append(digits)
        return number


class _NotJSON(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _decode(text: str, start: int) -> tuple[Any, int, _Strict]:
    strict = _Strict()
    value, end = strict.decoder.raw_decode(text, start)
    return value, end, strict


def _lines(text: str) -> Iterator[Value | Fault]:
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line = lines[number].rstrip("\r")
        if not line.strip():
            number += 1
            continue
        found = _one_line(line, number + 1)
        span = 1
        if isinstance(found, Fault):
            found, span = _several_lines(lines, number, found)
        yield found
        number += span


def _one_line(line: str, number: int) -> Value | Fault:
    start = len(line) - len(line.lstrip())
    try:
        value, end, strict = _decode(line, start)
    except _NotJSON as error:
        return _constant_fault(line, start, error.name, number)
    except json.JSONDecodeError as error:
        return _fault(line, error.pos, error.msg, number)
    except RecursionError:
        return Fault(number, 1, "the JSON is nested too deeply to read", "flatten the object")
    rest = line[end:].strip()
    if rest:
        column = end + len(line[end:]) - len(line[end:].lstrip()) + 1
        return _trailing_fault(rest, number, column)
    return Value(value, number, "line", tuple(strict.duplicates), tuple(strict.huge))


def _several_lines(lines: list[str], first: int, fault: Fault) -> tuple[Value | Fault, int]:
    """A value that goes on over the next lines: pretty-printed, or cut by a raw line break in a string."""
    joined = lines[first]
    start = len(joined) - len(joined.lstrip())
    margin = joined[:start]
    if not joined.startswith("{", start) or not _runs_on(joined, start):
        return fault, 1
    count = 1
    for line in lines[first + 1 : first + _MAX_SPAN]:
        if line.startswith(margin + "{") and not joined.rstrip().endswith(("[", ",", ":")):
            break  # a new row begins here
        joined += "\n" + line
        count += 1
        try:
            value, end, strict = _decode(joined, start)
            if not joined[end:].strip():
                spread = Value(value, first + 1, "spread", tuple(strict.duplicates), tuple(strict.huge))
                return spread, count
        except (ValueError, RecursionError):
            pass
        if _parses_with_raw_newlines(joined, start) or line.rstrip(" \t\r,") in (margin + "}", margin + "]}"):
            return _first_fault(joined, start, first + 1), count
    if lines[first].strip() == "{":  # nothing of it stands on one line: the whole is one fault
        return _first_fault(joined, start, first + 1), count
    return fault, 1


def _runs_on(line: str, start: int) -> bool:
    """Is the text good as far as it goes?"""
    try:
        _decode(line, start)
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string") or not line[error.pos :].strip()
    except (ValueError, RecursionError):
        pass
    return False


def _first_fault(text: str, start: int, first_line: int) -> Fault:
    try:
        _, end, _ = _decode(text, start)
    except _NotJSON as error:
        return _constant_fault(text, start, error.name, first_line)
    except json.JSONDecodeError as error:
        return _fault(text, error.pos, error.msg, first_line)
    except RecursionError:
        return Fault(first_line, 1, "the JSON is nested too deeply to read", "flatten the object")
    rest = text[end:].lstrip()
    line, column = _place(text, len(text) - len(rest))
    return _trailing_fault(rest.rstrip(), line + first_line - 1, column)


def _parses_with_raw_newlines(text: str, start: int) -> bool:
    try:
        _, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return False
    return not text[end:].strip()


def _array(text: str, start: int) -> Iterator[Value | Fault]:
    position = _skip_space(text, start + 1)
    line, counted = 1 + text.count("\n", 0, position), position
    if text[position : position + 1] == "]":
        position += 1
    else:
        while True:
            line, counted = line + text.count("\n", counted, position), position
            if text[position : position + 1] in ("]", ""):
                yield _array_fault(text, position)
                return
            try:
                value, end, strict = _decode(text, position)
            except _NotJSON as error:
                yield _constant_fault(text, position, error.name, 1)
                return
            except json.JSONDecodeError as error:
                yield _fault(text, error.pos, error.msg, 1)
                return
            except RecursionError:
                yield Fault(line, 1, "the JSON is nested too deeply to read", "flatten the object")
                return
            yield Value(value, line, "array", tuple(strict.duplicates), tuple(strict.huge))
            position = _skip_space(text, end)
            mark = text[position : position + 1]
            if mark == ",":
                position = _skip_space(text, position + 1)
                continue
            if mark != "]":
                yield _array_fault(text, position)
                return
            position += 1
            break
    rest = _skip_space(text, position)
    if rest < len(text):
        fault_line, column = _place(text, rest)
        yield Fault(fault_line, column, "there is text after the end of the array", "remove what follows the final ]")


def _array_fault(text: str, position: int) -> Fault:
    line, column = _place(text, position)
    if position >= len(text):
        return Fault(line, column, "the array is not closed: the file is cut short", "restore the missing end, up to ]")
    if text[position] == "]":
        return Fault(line, column, "a comma stands before the closing ]", "remove the trailing comma")
    return Fault(line, column, "a comma is missing between two rows of the array", "put a comma before this place")


def _fault(text: str, position: int, message: str, first_line: int) -> Fault:
    """Turn the parser's complaint into the cause a person recognises."""
    line, column = _place(text, position)
    at = text[position : position + 1]
    reason, hint = _cause(text, position, at, message)
    return Fault(line + first_line - 1, column, reason, hint)


def _cause(text: str, position: int, at: str, message: str) -> tuple[str, str]:
    before = text[:position].rstrip()
    if at == "'":
        return "single quotes are not JSON", 'write strings between double quotes: "…"'
    if text.startswith(("//", "/*", "#"), position):
        return "a comment is not JSON", "remove the comment"
    if message.startswith("Illegal trailing comma") or (at in ("}", "]") and before.endswith(",")):
        return "a comma stands before the closing bracket", "remove the trailing comma"
    if message.startswith("Invalid control character"):
        if at in ("\n", "\r"):
            return "a string holds a raw line break", "write the line break as \\n inside the string"
        return f"a string holds a raw control character (U+{ord(at):04X})", "escape it: a tab is \\t"
    if message.startswith("Invalid \\"):
        return "a backslash begins no known escape", "write a literal backslash as \\\\"
    if message.startswith("Unterminated string"):
        return "a string is not closed: the line is cut short or a quote is missing", 'close it with "'
    if not text[position:].strip():
        return "the JSON ends too early: it is cut short", "restore the missing end of the object"
    if message.startswith("Expecting ',' delimiter") and at not in '"{[}]:':
        return "a quote inside a string is not escaped, or a comma is missing", 'write a quote inside a string as \\"'
    if not re.match(r"[\s{\[\"]", text.lstrip()[:1]):
        return "the line is not JSON", 'write one object a line: {"prompt": "…", "completion": "…"}'
    return f"not valid JSON ({message[0].lower()}{message[1:]})", "correct the JSON at this place"


def _constant_fault(text: str, start: int, name: str, first_line: int) -> Fault:
    tokens = re.compile(rf'"(?:[^"\\]|\\.)*"|{re.escape(name)}', re.DOTALL).finditer(text, start)
    position = next((token.start() for token in tokens if token.group() == name), start)
    line, column = _place(text, position)
    return Fault(line + first_line - 1, column, f"{name} is not JSON", "write null, or a string")


def _trailing_fault(rest: str, line: int, column: int) -> Fault:
    if rest.startswith(","):
        return Fault(line, column, "a comma stands after the object", "one object a line, with no comma between lines")
    if rest.startswith("{"):
        return Fault(line, column, "two objects stand on one line", "put each object on a line of its own")
    if rest.startswith(("//", "/*", "#")):
        return Fault(line, column, "a comment is not JSON", "remove the comment")
    return Fault(
        line, column, "there is text after the end of the object", "remove it, or escape quotes inside strings"
    )


def _place(text: str, position: int) -> tuple[int, int]:
    return text.count("\n", 0, position) + 1, position - (text.rfind("\n", 0, position) + 1) + 1


def _skip_space(text: str, position: int) -> int:
    match = re.compile(r"[ \t\r\n]*").match(text, position)
    return match.end() if match else position


def canonical(value: Any) -> str:
    """One text for one JSON value: sorted keys, no spaces, no escapes but the necessary (after RFC 8785)."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
