"""Cells of tables whose column has a certain heading: CSV, Markdown, `INSERT` of SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WIDE = "  "  # of columns that spaces line up
_DELIMITERS = ("\t", ";", "|", ",", _WIDE)
_FEWEST_WIDE = 3  # with fewer it is a form
_GAP = re.compile(r"[ ]{2,}")
# A cell in quotes may hold the delimiter.
_QUOTED = {
    one: re.compile(rf'[ ]{{0,9}}"(?:[^"]|""){{0,400}}+"[ ]{{0,9}}(?=[{one}]|$)|[^{one}]*+')
    for one in ("\t", ";", "|", ",")
}
_INSERT = re.compile(r"\binsert\s{1,9}into\s{1,9}[^\s(]{1,80}\s{0,9}\((?P<columns>[^()]{1,400})\)\s{0,9}values", re.I)
_ROW = re.compile(r"\s{0,9},?\s{0,9}\((?P<row>(?:[^()']|'[^']{0,400}+'){1,400}+)\)")
_CELL = re.compile(r"(?:[^,']|'[^']{0,400}+')++")
_AROUND = " \t\r\n\"'`*[]"


def cells(text: str, heading: re.Pattern[str]) -> list[range]:
    """Where the cells stand whose column is named as a whole by `heading`, in order."""
    if not heading.search(text):
        return []
    return sorted([*_inserted(text, heading), *_lined_up(text, heading)], key=lambda cell: cell.start)


def values(text: str, heading: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """The same cells without quotes and spaces: where each begins, and what stands in it."""
    for cell in cells(text, heading):
        raw = text[cell.start : cell.stop]
        yield cell.start + len(raw) - len(raw.lstrip(_AROUND)), raw.strip(_AROUND)


def _inserted(text: str, heading: re.Pattern[str]) -> Iterator[range]:
    """Cells of SQL's `INSERT INTO people (name, dob) VALUES ('Blin', '1983-12-04'), …`."""
    for insert in _INSERT.finditer(text):
        names = [name.strip(_AROUND) for name in insert["columns"].split(",")]
        wanted = next((number for number, name in enumerate(names) if heading.fullmatch(name)), -1)
        at = insert.end()
        while wanted >= 0 and (row := _ROW.match(text, at)):
            at = row.end()
            found = list(_CELL.finditer(text, *row.span("row")))
            if len(found) == len(names):
                yield range(*found[wanted].span())


def _lined_up(text: str, heading: re.Pattern[str]) -> Iterator[range]:
    """Cells of lines with the same number of the same delimiter, as in CSV or Markdown."""
    delimiter, width, wanted = "", 0, -1
    at = 0
    for line in text.split("\n"):
        row = _split(line, delimiter) if delimiter else []
        if len(row) != width or width == 0:
            delimiter, wanted = _heading(line, heading)
            width = len(_split(line, delimiter)) if delimiter else 0
        else:
            yield range(at + row[wanted].start, at + row[wanted].stop)
        at += len(line) + 1


def _split(line: str, delimiter: str) -> list[range]:
    """Where the cells of a line stand, as CSV has them."""
    line = line.removesuffix("\r")
    if delimiter == _WIDE:
        gaps = list(_GAP.finditer(line))
        starts, ends = [0, *(gap.end() for gap in gaps)], [*(gap.start() for gap in gaps), len(line)]
        return [range(*cell) for cell in zip(starts, ends, strict=True)]
    row, at = [], 0
    while at <= len(line) and (cell := _QUOTED[delimiter].match(line, at)):
        row.append(range(*cell.span()))
        at = cell.end() + 1
    return row


def _heading(line: str, heading: re.Pattern[str]) -> tuple[str, int]:
    """The delimiter of a first row and the number of its wanted column; ("", -1) for any other line."""
    if heading.search(line):
        for delimiter in _DELIMITERS:
            row = _split(line, delimiter) if delimiter in line else []
            if delimiter == _WIDE and (len(row) < _FEWEST_WIDE or not row[0] or re.search("[0-9]", line)):
                continue
            for number, cell in enumerate(row):
                if heading.fullmatch(line[cell.start : cell.stop].strip(_AROUND)):
                    return delimiter, number
    return "", -1
