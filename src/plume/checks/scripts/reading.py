"""Reads a script or a notebook into statements that can be examined; nothing of it is run.

What people share is not always clean Python: notebook magics, console prompts and broken statements are set
aside, and the rest keeps its line numbers.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path

from plume.checks.scripts.notebooks import LARGEST_CODE, CellLine, broken_line, code_cells
from plume.errors import UserError

LARGEST = 64 * 2**20  # bytes: a notebook with its pictures; more than that is no script
_ATTEMPTS = 40  # stretches tried around syntax errors
_MAGIC = re.compile(r"^(\s*)(?:[%!].*|\?{1,2}\w.*|\w[\w.]*\?{1,2}\s*)$")
_CAPTURED = re.compile(r"^(\s*\w+\s*=\s*)[!%].*$")
_CODE_MAGIC = re.compile(r"^%%(?:time|timeit|capture|prun|debug)\b")
_DEFINES = re.compile(r"^[ \t]*%(?:run|pylab|load|store|loadpy)\b", re.MULTILINE)
_PROMPT = re.compile(r"^\s*(?:>>>|\.\.\.|In \[\d*\]:|\.\.\.:) ?")
_FIRST_PROMPT = re.compile(r"^[ \t]*(?:>>>|In \[\d*\]:)", re.MULTILINE)
_CONTINUES = re.compile(r"[\s)\]}#]|(?:else|elif|except|finally)\b|$")


@dataclass(frozen=True, slots=True)
class Problem:
    """A place that could not be read, and why."""

    line: int
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Script:
    """The statements of a file. `whole` says that nothing was left out, so that an absence proves something.

    `places` gives for every line of the tree the physical line and what a notebook's reader calls it.
    """

    file: str
    tree: ast.Module
    places: tuple[tuple[int, str], ...]
    problems: tuple[Problem, ...]
    whole: bool


def read_script(path: str) -> Script:
    """Raises UserError when the file cannot be read at all."""
    try:
        if Path(path).stat().st_size > LARGEST:
            raise UserError(f"{path} is larger than {LARGEST // 2**20} MiB", "a training script is smaller than that")
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path!r}: {error}", "name a readable .py or .ipynb file") from error
    text, problems = _decoded(data)
    if path.endswith(".ipynb"):
        cells = code_cells(text)
        broken = broken_line(text)
        if broken is not None:
            problems.append(Problem(broken, "the notebook is not valid JSON", "save it again from Jupyter"))
    else:
        lines = text[: LARGEST_CODE + 1].split("\n")
        cells = [[CellLine(line, number, 0, 0) for number, line in enumerate(lines, start=1)]]
    return _assembled(path, cells, problems)


def _decoded(data: bytes) -> tuple[str, list[Problem]]:
    encoding = "utf-8"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        try:
            encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        except (SyntaxError, UnicodeError, ValueError):
            encoding = "utf-8"
    problems = []
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError) as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        problems.append(Problem(data.count(b"\n", 0, start) + 1, "the file is not UTF-8 text", "save it as UTF-8"))
        text = data.decode("utf-8", "replace")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), problems


def _assembled(path: str, cells: list[list[CellLine]], problems: list[Problem]) -> Script:
    body: list[ast.stmt] = []
    places: list[tuple[int, str]] = []
    whole, size = not problems, 0
    for cell in cells:
        code = "\n".join(line.text for line in cell)
        labels = [(line.line, f"cell {line.cell}, line {line.line_in_cell}: " if line.cell else "") for line in cell]
        if (size := size + len(code)) > LARGEST_CODE:
            problems.append(Problem(labels[0][0], "there is too much code from here on to be examined", "split it"))
            whole = False
            break
        if _DEFINES.search(code):
            whole = False
        statements, fault = _statements(code)
        for statement in statements:
            ast.increment_lineno(statement, len(places))
        body += statements
        if fault is not None:
            number, message = fault
            line, label = labels[min(max(number, 1), len(labels)) - 1]
            problems.append(Problem(line, label + message, "correct it: Python stops here"))
            whole = False
        places += labels
    return Script(path, ast.Module(body, []), tuple(places), tuple(problems), whole)


def _statements(code: str) -> tuple[list[ast.stmt], tuple[int, str] | None]:
    """The statements that can be read, and line and message of the first that cannot."""
    body, fault = _parsed(code)
    if fault is None:
        return body, None
    cleaned = _cleaned(code)
    if cleaned != code:
        body, fault = _parsed(cleaned)
    return (body, None) if fault is None else (_salvaged(cleaned), fault)


def _parsed(code: str) -> tuple[list[ast.stmt], tuple[int, str] | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code).body, None
    except SyntaxError as error:
        return [], (error.lineno or 1, f"Python cannot read this: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return [], (1, f"Python cannot read this: {str(error) or 'it is nested too deeply'}")


def _cleaned(code: str) -> str:
    """Without console prompts and their output, and without notebook magics; every line stays where it was."""
    lines = code.split("\n")
    if _FIRST_PROMPT.search(code):
        lines = [line[match.end() :] if (match := _PROMPT.match(line)) else "" for line in lines]
    first = next((place for place, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%") and not _CODE_MAGIC.match(lines[first]):
        return "\n" * (len(lines) - 1)
    lines = [_CAPTURED.sub(r"\1None", _MAGIC.sub(r"\1pass", line)) for line in lines]
    return "\n".join(lines)


def _salvaged(code: str) -> list[ast.stmt]:
    """The top-level statements around syntax errors: the code is tried in stretches that begin at the margin."""
    lines = code.split("\n")
    starts = [number for number, line in enumerate(lines) if not _CONTINUES.match(line)]
    body: list[ast.stmt] = []
    begin = 0
    for _ in range(_ATTEMPTS):
        stretch, fault = _parsed("\n" * begin + "\n".join(lines[begin:]))
        if fault is None:
            return body + stretch
        before = [start for start in starts if begin < start < max(fault[0], begin + 1)]
        for cut in reversed(before[-8:]):
            stretch, still = _parsed("\n" * begin + "\n".join(lines[begin:cut]))
            if still is None:
                body += stretch
                break
        following = [start for start in starts if start >= max(fault[0], begin + 1)]
        if not following:
            break
        begin = following[0]
    return body
