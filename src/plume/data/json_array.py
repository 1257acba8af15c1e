"""One JSON array, element by element: the file is never held, only the element being read."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from plume.data.compressed import DamagedArchive
from plume.data.json_fault import Fault, constant_fault, fault, too_deep
from plume.data.json_text import NotJSON, Value, decode
from plume.data.lines import MAX_LINE, damaged, undecodable
from plume.types import Finding, Source

_BLOCK = 2**20
_SPACE = re.compile(r"[ \t\r\n]*")
_NEAR_END = 16  # a parser may complain a few characters before the end of a text that is cut


class _Window:
    """A stretch of the file's text, and where in the file the reading position stands."""

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self.stream, self.file = stream, file
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""
        self.position = 0  # in the text; what is before it has been read, and is forgotten when more is
        self.line = self.column = 1
        self.ended = False
        self.broken: Finding | None = None  # what stands in the file after the text, instead of more text

    @property
    def rest(self) -> str:
        return self.text[self.position :]

    def more(self) -> bool:
        """Read on; False at the end of what can be read."""
        while not self.ended:
            self.text, self.position = self.rest, 0
            try:
                raw = self.stream.read(max(_BLOCK, len(self.text)))
            except DamagedArchive as error:
                raw, self.broken = b"", damaged(Source(self.file, self.line + self.text.count("\n")), error)
            self.ended = not raw
            try:
                new = self.decoder.decode(raw, final=self.ended)
            except UnicodeDecodeError as error:
                good = bytes(error.object)
                new, self.ended = good[: error.start].decode("utf-8"), True
                self._break(good, error.start, self.text + new)
            self.text += new
            if new:
                return True
        return False

    def _break(self, raw: bytes, position: int, before: str) -> None:
        line = self.line + before.count("\n")
        column = len(before) - before.rfind("\n") if "\n" in before else self.column + len(before)
        found = undecodable(raw[position:], 0, Source(self.file, line))
        source = Source(self.file, line, column)
        self.broken = Finding(found.code, found.severity, source, found.message, found.hint)

    def go_to(self, position: int) -> None:
        """What stands before that position in the text has been read."""
        lines = self.text.count("\n", self.position, position)
        if lines:
            self.line += lines
            self.column = position - self.text.rfind("\n", self.position, position)
        else:
            self.column += position - self.position
        self.position = position

    def skip_space(self) -> str:
        """Go to the next mark and return it; "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.go_to(match.end() if match else self.position)
            if self.position < len(self.text) or not self.more():
                return self.text[self.position : self.position + 1]

    def fault(self, found: Fault) -> Fault:
        """A fault in the window's text, as it stands in the file."""
        column = found.column + (self.column - 1 if found.line == 1 else 0)
        return Fault(found.line + self.line - 1, column, found.reason, found.hint)


def array_values(stream: BinaryIO, file: str) -> Iterator[Value | Fault | Finding]:
    """The elements of the array that the stream holds. A fault ends the reading: what follows is a guess."""
    window = _Window(stream, file)
    window.more()
    if window.text.startswith("\ufeff"):
        hint = "save as UTF-8 without BOM; it is skipped here"
        yield Finding("D107", "warning", Source(file, 1), "the file begins with a byte order mark", hint)
        window.text = window.text[1:]
    window.skip_space()
    window.go_to(window.position + 1)
    if window.skip_space() != "]":
        while True:
            found = _element(window)
            yield found
            if not isinstance(found, Value):
                return
            mark = window.skip_space()
            if mark != ",":
                break
            window.go_to(window.position + 1)
            window.skip_space()
        if mark != "]":
            yield window.broken or window.fault(_array_fault(mark))
            return
    window.go_to(window.position + 1)
    if window.skip_space():
        reason = "there is text after the end of the array"
        yield window.fault(Fault(1, 1, reason, "remove what follows the final ]"))
    elif window.broken:
        yield window.broken


def _element(window: _Window) -> Value | Fault | Finding:
    while True:
        mark = window.text[window.position : window.position + 1]
        if mark in ("]", ""):
            return window.broken or window.fault(_array_fault(mark))
        try:
            value, end = decode(window.text, window.position, window.line, "array")
            if end < len(window.text) or window.ended:
                window.go_to(end)
                return value
            wrong, unfinished = _array_fault(""), True
        except NotJSON as error:
            return window.fault(constant_fault(window.rest, 0, error.name, 1))
        except json.JSONDecodeError as error:
            wrong = fault(window.rest, error.pos - window.position, error.msg, 1)
            unfinished = error.msg.startswith("Unterminated") or error.pos >= len(window.text) - _NEAR_END
        except RecursionError:
            return window.fault(too_deep(1))
        if unfinished and len(window.text) - window.position > MAX_LINE:
            hint = "split the row: no model reads so much at once, or a quote is missing before this place"
            return window.fault(Fault(1, 1, f"a row of the array is longer than {MAX_LINE >> 20} MiB", hint))
        if not unfinished or not window.more():
            return window.broken or window.fault(wrong)


def _array_fault(mark: str) -> Fault:
    """What is wrong where a row, a comma or the end is due."""
    if not mark:
        return Fault(1, 1, "the array is not closed: the file is cut short", "restore the missing end, up to ]")
    if mark == "]":
        return Fault(1, 1, "a comma stands before the closing ]", "remove the trailing comma")
    return Fault(1, 1, "a comma is missing between two rows of the array", "put a comma before this place")
