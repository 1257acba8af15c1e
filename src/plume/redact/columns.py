"""Cells of tables whose column has a certain heading: CSV, Markdown, `INSERT` of SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DELIMITERS = "\t;|,"
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
        row = line.split(delimiter) if delimiter else []
        if len(row) != width or width == 0:
            delimiter, wanted = _heading(line, heading)
            width = line.count(delimiter) + 1 if delimiter else 0
        else:
            start = at + sum(len(cell) + 1 for cell in row[:wanted])
            yield range(start, start + len(row[wanted]))
        at += len(line) + 1


def _heading(line: str, heading: re.Pattern[str]) -> tuple[str, int]:
    """The delimiter of a first row and the number of its wanted column; ("", -1) for any other line."""
    if heading.search(line):
        for delimiter in _DELIMITERS:
            for number, cell in enumerate(line.split(delimiter)) if delimiter in line else ():
                if heading.fullmatch(cell.strip(_AROUND)):
                    return delimiter, number
    return "", -1
