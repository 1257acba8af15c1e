"""Tables become values, one dict a row, column → cell: CSV and TSV, and the batches of Parquet files and queries."""

from __future__ import annotations

import csv
import datetime
import decimal
import itertools
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plume.data.json_text import Value
from plume.data.lines import Line
from plume.types import Finding, Source

_DELIMITERS = "\t;|,"  # the rarest in names first: it wins between equals
_COMPRESSED = (".gz", ".zst", ".zstd")
_MAX_FIELD = 16 * 2**20  # characters in a cell, or in a record of several lines
_MAX_SPAN = 1000  # lines of a record
_MAX_REREAD = 256 * 2**20  # characters read again after quotes that do not close, and 64 a line
_HEADER_SPAN = 20
_SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*("?)')
_PLAIN = frozenset({str, int, float, bool, type(None)})
_AS_TEXT = "store it as UTF-8 text"
_SHAPE = "name the columns in the first row: prompt,completion"


def records(lines: Iterable[Line | Finding], file: str, delimiter: str | None = None) -> Iterator[Value | Finding]:
    """The rows of a CSV or TSV file under its first row's names; a value's line is where its record starts.

    The delimiter is what a first line `sep=;` says, what is given, a tab for .tsv, or what parts the header in
    most cells. Findings among the lines are passed on. A record that cannot be read costs its first line only.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    feed = _Feed(lines)
    delimiter = _delimiter(feed, file, delimiter)
    faulty = False
    count = 0
    header: _Header | None = None
    for found in _cells(feed, file, delimiter):
        if isinstance(found, Finding):
            yield found
            faulty |= found.severity == "error"
            if header is None and faulty:
                return
            continue
        line, cells = found
        if len(cells) == 1 and not cells[0].strip() and (header is None or header.width > 1):
            continue
        if header is None:
            header = _Header(cells, Source(file, line))
            feed.width = header.width
            yield from header.findings
            if not header.columns:
                return
        elif len(cells) == header.width:
            count += 1
            yield Value(header.row(cells), line, "table")
        else:
            faulty = True
            yield _ragged(cells, feed, delimiter, Source(file, line))
    if not count and not faulty:
        yield Finding("D215", "error", Source(file), "the file holds no row", f"{_SHAPE}, and one row a line")


class _Header:
    """The names of the columns, and what is wrong with them. A column without a name is left out."""

    def __init__(self, names: Sequence[str], source: Source) -> None:
        self.width = len(names)
        first: dict[str, int] = {}
        for position, name in enumerate(names):
            if name.strip():
                first.setdefault(name, position)
        self.columns = first
        self.findings = list(_header_findings(names, first, source))
        self._all = len(first) == len(names)

    def row(self, cells: Sequence[Any]) -> dict[str, Any]:
        if self._all:
            return dict(zip(self.columns, cells, strict=True))
        return {name: cells[position] for name, position in self.columns.items()}


def _header_findings(names: Sequence[str], first: Mapping[str, int], source: Source) -> Iterator[Finding]:
    if not first:
        yield Finding("D103", "error", source, "the header names no column", _SHAPE)
        return
    for name, count in Counter(name for name in names if name.strip()).items():
        if count > 1:
            message = f'{count} columns are called "{name[:80]}": which one is meant is not known'
            yield Finding("D103", "error", source, message, "give each column a name of its own", quote=name[:80])
    unnamed = [position for position, name in enumerate(names, start=1) if not name.strip()]
    if unnamed:
        which = ", ".join(map(str, unnamed[:5])) + (", …" if len(unnamed) > 5 else "")
        what = f"column {which} has" if len(unnamed) == 1 else f"columns {which} have"
        hint = "nothing to do, unless it was meant to be learnt"
        yield Finding("D103", "warning", source, f"{what} no name and cannot be used", hint)


class _Feed:
    """The lines that the csv module reads, and those of the record under way, to begin again after its first."""

    def __init__(self, lines: Iterable[Line | Finding]) -> None:
        self._source = iter(lines)
        self._ahead: deque[Line | Finding] = deque()
        self.record: list[Line] = []
        self.findings: list[Finding] = []
        self.size = 0
        self.damaged = False
        self.width = 0  # cells that a record should have
        self._reread = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        while True:
            if self.record and (len(self.record) + len(self.findings) >= _MAX_SPAN or self.size > _MAX_FIELD):
                raise _Endless
            line = self._ahead.popleft() if self._ahead else next(self._source)
            if isinstance(line, Line):
                break
            self.findings.append(line)
            if not self.record:
                raise _Between
            self.damaged |= line.severity == "error"
        self.record.append(line)
        self.size += len(line.text)
        return line.text + "\n"

    def begin(self) -> None:
        self.record = []
        self.size = 0
        self.damaged = False  # one of its lines was not text: that has been said

    def peek(self, count: int) -> list[Line]:
        """The next lines, as far as there are any before an error, left where they are."""
        found: list[Line] = []
        for place in itertools.count():
            if place == len(self._ahead):
                self._ahead.extend(itertools.islice(self._source, 1))
            if place == len(self._ahead) or len(found) == count:
                break
            line = self._ahead[place]
            if isinstance(line, Line):
                found.append(line)
            elif line.severity == "error":
                break
        return found

    def skip(self) -> None:
        """Drop the next line."""
        del self._ahead[next(place for place, line in enumerate(self._ahead) if isinstance(line, Line))]

    def again_after(self, number: int) -> bool:
        """Put back the record's lines after that line; False when too much has been read again already."""
        back = [line for line in self.record if line.number > number]
        self._reread += sum(len(line.text) + 64 for line in back)
        self._ahead.extendleft(reversed(back))
        return self._reread <= _MAX_REREAD


class _Endless(Exception):
    """A record goes on beyond what any record does."""


class _Between(Exception):
    """There is something to say before the next record."""


def _cells(feed: _Feed, file: str, delimiter: str) -> Iterator[tuple[int, list[str]] | Finding]:
    """The records, each with the line where it starts. Empty lines are skipped."""
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            cells = next(reader)
        except StopIteration:
            yield from feed.findings
            return
        except _Between:
            yield from _taken(feed)
            continue
        except (csv.Error, _Endless) as error:
            yield from _taken(feed)
            finding = _fault(feed, file, delimiter, error)
            yield finding
            if not feed.again_after(finding.source.line or 0):
                message = "quotes open and do not close in very many records: the rest of the file is not read"
                yield Finding("D101", "error", finding.source, message, "close the quotes, or write the file anew")
                return
            continue
        if feed.findings:
            yield from _taken(feed)
        if cells and not feed.damaged:
            yield feed.record[0].number, cells


def _taken(feed: _Feed) -> list[Finding]:
    found, feed.findings = feed.findings, []
    return found


def _delimiter(feed: _Feed, file: str, asked: str | None) -> str:
    first = feed.peek(1)
    told = _SEPARATOR.fullmatch(first[0].text) if first else None
    if told:
        feed.skip()
        return told[1]
    if asked:
        return asked
    name = Path(file)
    if (Path(name.stem) if name.suffix.lower() in _COMPRESSED else name).suffix.lower() == ".tsv":
        return "\t"
    header = ""
    for line in feed.peek(_HEADER_SPAN):
        header += line.text.rstrip("\r") + "\n"
        if header.strip() and header.count('"') % 2 == 0:
            break
    width = {mark: len(_loosely(header, mark)) for mark in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda mark: width[mark])
    return best if width[best] > 1 else ","


def _loosely(header: str, delimiter: str) -> list[str]:
    try:
        return next((cells for cells in csv.reader(header.split("\n"), delimiter=delimiter) if cells), [])
    except csv.Error:
        return []


def _ragged(cells: Sequence[str], feed: _Feed, delimiter: str, source: Source) -> Finding:
    name = "a tab" if delimiter == "\t" else f"‘{delimiter}’"
    width, last = feed.width, feed.record[-1].number
    row = f"the row, up to line {last}," if last != source.line else "the row"
    message = f"{row} has {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, the header {width}"
    if len(cells) < width:
        hint = f"complete the row; an empty cell still needs {name} beside it"
    elif any(re.match(r'\s+"', cell) for cell in cells):
        hint = f"remove the space between {name} and the opening quote"
    elif not any(cells[width:]):
        hint = f"remove {name} at the end of the row"
    elif last != source.line:
        hint = "a quote that opens a cell may not be closed where the cell ends"
    else:
        hint = f'put a cell that holds {name} between double quotes: "…"'
    return Finding("D101", "error", source, message, hint)


def _fault(feed: _Feed, file: str, delimiter: str, error: Exception) -> Finding:
    """What is wrong with a record that the csv module refuses, at the quote that opens the bad cell."""
    start = Source(file, feed.record[0].number)
    if "new-line character" in str(error):
        message = "a bare carriage return (\\r) stands in a cell without quotes"
        hint = "save the file with the line ends of Linux or Windows, or put the cell between double quotes"
        return Finding("D101", "error", start, message, hint)
    if "field larger" in str(error):
        message = f"a cell is longer than {_MAX_FIELD >> 20} Mi characters"
        return Finding("D101", "error", start, message, "split it: no model reads so much at once")
    cell = _bad_cell(feed.record, delimiter, feed.width)
    source = Source(file, cell.line, cell.column)
    if cell.last is None:
        limit = f"{_MAX_FIELD >> 20} Mi characters" if feed.size > _MAX_FIELD else f"{_MAX_SPAN:,} lines"
        where = f"within {limit}" if isinstance(error, _Endless) else "up to the end of the file"
        message = f"the quote that opens a cell here is not closed {where}"
        return Finding("D101", "error", source, message, "close it, or double it if it is part of the text")
    if cell.last > cell.line:
        message = f"the cell that opens here runs on to line {cell.last}, and then the row cannot be read"
        return Finding("D101", "error", source, message, 'close it where it ends; write a quote inside it twice: ""')
    message = "the cell that opens here has text after its closing quote"
    return Finding("D101", "error", source, message, 'write a quote inside a cell twice: ""')


class _Cell(NamedTuple):
    """Where a cell between quotes opens, and the line where it closes, if it does."""

    line: int
    column: int
    last: int | None


def _bad_cell(record: Sequence[Line], delimiter: str, width: int) -> _Cell:
    """The cell to blame for a record that cannot be read.

    The first that the csv module cannot read; but when the record has its `width` cells before, an earlier
    cell must have run on into the next record: the first of several lines is blamed.
    """
    text = "\n".join(line.text for line in record) + "\n"
    plain = re.compile(rf"[^{re.escape(delimiter)}\n]*")
    cell: re.Match[str] | None = None
    spread: re.Match[str] | None = None
    count = position = 0
    while position < len(text):
        count += 1
        quoted = _QUOTED.match(text, position)
        if quoted:
            cell = quoted
            if not quoted[1] or text[quoted.end()] not in (delimiter, "\r", "\n"):
                break
            if spread is None and "\n" in quoted[0]:
                spread = quoted
        found = quoted or plain.match(text, position)
        position = found.end() + 1 if found else len(text)
    blamed = spread if spread and count > width else cell
    if blamed is None:
        return _Cell(record[0].number, 1, None)
    start, end = blamed.span()
    first = text.count("\n", 0, start)
    last = record[first + text.count("\n", start, end)].number if blamed[1] else None
    return _Cell(record[first].number, start - text.rfind("\n", 0, start), last)


class Batch(NamedTuple):
    """Some rows as columns, and the positions of those whose cells are known to be plain values."""

    columns: Sequence[Sequence[Any]]
    settled: Collection[int] = ()


def typed(names: Sequence[str], batches: Iterable[Batch], file: str) -> Iterator[Value | Finding]:
    """The rows of batches of columns, numbered from 1: dates, decimals and bytes become text, the rest stays.

    Bytes that are not UTF-8 are a finding each, or one for the column when most of its first batch is like that.
    """
    header = _Header(names, Source(file))
    yield from header.findings
    columns = dict(header.columns)
    done = 0
    for batch in batches:
        bad: dict[int, Finding] = {}
        kept: dict[str, Sequence[Any]] = {}
        for name, position in list(columns.items()):
            cells = batch.columns[position]
            if position not in batch.settled and not _PLAIN.issuperset(map(type, cells)):
                filled = sum(cell is not None for cell in cells)
                cells, undecodable = _converted(cells, name, file, done + 1)
                if not done and 2 * len(undecodable) > filled:
                    del columns[name]
                    message = f'the column "{name[:80]}" holds bytes, not text, and cannot be used'
                    yield Finding("D107", "warning", Source(file), message, _AS_TEXT)
                    continue
                bad.update(undecodable)
            kept[name] = cells
        row = done
        for row, values in enumerate(zip(*kept.values(), strict=True), start=done + 1):
            yield bad[row] if row in bad else Value(dict(zip(kept, values, strict=True)), row, "table")
        done = row
    if not done and columns:
        yield Finding("D215", "error", Source(file), "there is no row", "nothing can be learnt from no row")


def _converted(cells: Sequence[Any], name: str, file: str, first: int) -> tuple[list[Any], dict[int, Finding]]:
    """The cells as plain values, and a finding by row number for those that are not text."""
    made: list[Any] = []
    bad: dict[int, Finding] = {}
    for row, cell in enumerate(cells, start=first):
        try:
            made.append(_plain(cell))
        except UnicodeDecodeError as error:
            made.append(None)
            message = f'"{name[:80]}" holds bytes that are not UTF-8 (the first is 0x{error.object[error.start]:02x})'
            bad[row] = Finding("D107", "error", Source(file, row), message, _AS_TEXT)
    return made, bad


def _plain(value: Any) -> Any:
    """A value as JSON has them; raises UnicodeDecodeError for bytes that are not UTF-8."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8")
    if isinstance(value, Mapping):
        return {str(key): _plain(cell) for key, cell in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(cell) for cell in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return format(value, "f") if isinstance(value, decimal.Decimal) else str(value)
