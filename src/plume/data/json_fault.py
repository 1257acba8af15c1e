"""What is wrong with text that is not JSON, in the words of the person who wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """Text that is not JSON: where, what is wrong, what to do, and the lines (first, last) that it spoils."""

    line: int
    column: int
    reason: str
    hint: str
    spoilt: tuple[int, int] | None = None


def too_deep(line: int) -> Fault:
    return Fault(line, 1, "the JSON is nested too deeply to read", "flatten the object")


def fault(text: str, position: int, message: str, first_line: int) -> Fault:
    """Turn the parser's complaint into the cause a person recognises."""
    line, column = place(text, position)
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
    if message.startswith("Expecting property name") and (at.isalpha() or at == "_"):
        return "a key stands without quotes", 'write keys between double quotes: "prompt"'
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


def constant_fault(text: str, start: int, name: str, first_line: int) -> Fault:
    tokens = re.compile(rf'"(?:[^"\\]++|\\.)*+"|{re.escape(name)}', re.DOTALL).finditer(text, start)
    position = next((token.start() for token in tokens if token.group() == name), start)
    line, column = place(text, position)
    return Fault(line + first_line - 1, column, f"{name} is not JSON", "write null, or a string")


def trailing_fault(rest: str, line: int, column: int) -> Fault:
    if rest.startswith(","):
        return Fault(line, column, "a comma stands after the object", "one object a line, with no comma between lines")
    if rest.startswith("{"):
        return Fault(line, column, "two objects stand on one line", "put each object on a line of its own")
    if rest.startswith(("//", "/*", "#")):
        return Fault(line, column, "a comment is not JSON", "remove the comment")
    return Fault(
        line, column, "there is text after the end of the object", "remove it, or escape quotes inside strings"
    )


def place(text: str, position: int) -> tuple[int, int]:
    return text.count("\n", 0, position) + 1, position - (text.rfind("\n", 0, position) + 1) + 1
