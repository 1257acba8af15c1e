"""Where the code of a Jupyter notebook stands in its JSON file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

LARGEST_CODE = 2**18  # characters of code that are examined
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class CellLine:
    """One line of code: its text, the physical line of the file, and where a reader of the notebook finds it."""

    text: str
    line: int
    cell: int
    line_in_cell: int


def code_cells(text: str) -> list[list[CellLine]]:
    """The code cells of a notebook, numbered from 1 among all cells as the notebook shows them.

    Broken JSON gives the cells before the break: the text is scanned, not parsed.
    """
    kinds: dict[_Path, str] = {}
    sources: dict[_Path, list[tuple[str, int]]] = {}
    for path, value, line in _strings(text):
        match path:
            case (*cell, "cell_type") if _is_cell(cell):
                kinds[tuple(cell)] = value
            case (*cell, "source" | "input") | (*cell, "source" | "input", int()) if _is_cell(cell):
                sources.setdefault(tuple(cell), []).append((value, line))
    cells = []
    for number, place in enumerate(sources, start=1):
        if kinds.get(place) == "code":
            cells.append(_lines(sources[place], number))
    return cells


def broken_line(text: str) -> int | None:
    """The line on which the notebook stops being JSON, or None; nesting that no reader follows counts as broken."""
    try:
        json.loads(text, parse_int=float)  # an integer may have more digits than Python reads
    except json.JSONDecodeError as error:
        return error.lineno
    except RecursionError:
        return 1
    return None


def _is_cell(path: list[str | int]) -> bool:
    return len(path) in (2, 4) and path[-2] == "cells" and (len(path) == 2 or path[0] == "worksheets")


def _lines(pieces: list[tuple[str, int]], number: int) -> list[CellLine]:
    """Jupyter writes a line of code a string, each with its line break; other tools one string a cell."""
    found: list[CellLine] = []
    open_line = ""
    for value, line in pieces:
        if len(found) > LARGEST_CODE:
            break
        *whole, rest = (open_line + value).split("\n", LARGEST_CODE + 1)
        found += [CellLine(text, line, number, len(found) + place) for place, text in enumerate(whole, start=1)]
        open_line = rest
    if open_line:
        found.append(CellLine(open_line, pieces[-1][1], number, len(found) + 1))
    return found


def _strings(text: str) -> list[tuple[_Path, str, int]]:
    """Every string value with its path and its physical line, as far as the brackets make sense."""
    found: list[tuple[_Path, str, int]] = []
    path: list[str | int] = []
    expects_key: list[bool] = []
    line, seen = 1, 0
    for token in _TOKEN.finditer(text):
        line += text.count("\n", seen, token.start())
        seen = token.start()
        word = token.group()
        if word in "{[":
            path.append("" if word == "{" else 0)
            expects_key.append(word == "{")
        elif word in "}]":
            if not path:
                break
            path.pop()
            expects_key.pop()
        elif word == ",":
            if path and isinstance(path[-1], int):
                path[-1] += 1
            elif path:
                expects_key[-1] = True
        elif word[0] == '"' and path:
            value = _unquoted(word)
            if expects_key[-1]:
                path[-1], expects_key[-1] = value, False
            elif len(path) <= 6:
                found.append((tuple(path), value, line))
    return found


def _unquoted(word: str) -> str:
    try:
        return str(json.loads(word, strict=False))
    except ValueError:
        return word[1:-1]
