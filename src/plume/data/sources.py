"""Tables for `plume data prepare`: CSV, JSON lines, Parquet or a database query as one lazy polars frame."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import itertools
import json
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from plume.data import sql
from plume.errors import DataError, UserError
from plume.types import Finding

if TYPE_CHECKING:
    import polars as pl

ROW = "⟨row⟩"  # the number of the row in its source, from 0; no column of a table bears this name
_DELIMITED = {".csv": ",", ".tsv": "\t"}
_JSON = (".jsonl", ".ndjson")


class Input(BaseModel):
    """Where the rows come from: a file, or a database URL and a query."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str | None = Field(default=None, min_length=1)
    sql: str | None = Field(default=None, min_length=1)
    query: str | None = None
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    null_values: list[str] = []

    @model_validator(mode="after")
    def _one_source(self) -> Input:
        if (self.file is None) == (self.sql is None):
            raise ValueError("give either `file`, or `sql` with `query`")
        if (self.sql is None) != (self.query is None):
            raise ValueError("`sql` and `query` belong together")
        return self


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that are not read yet, how many there are, and how to name the place of one in its source."""

    frame: pl.LazyFrame
    rows: int
    source: Source

    def schema(self) -> dict[str, pl.DataType]:
        """Columns and their types, without the row number."""
        return {name: kind for name, kind in self.frame.collect_schema().items() if name != ROW}


@dataclass(frozen=True, slots=True)
class Source:
    """What was read: its name as the person gave it (no password), its digest, and its form."""

    name: str
    sha256: str
    suffix: str
    separator: str
    decimal: str
    blank_rows: int = 0

    def places(self, rows: Sequence[int]) -> list[str]:
        """`FILE:LINE` of rows counted from 0, or `FILE row N` where there are no lines."""
        if self.suffix not in _DELIMITED and self.suffix not in _JSON:
            return [f"{self.name} row {row + 1}" for row in rows]
        lines = dict(itertools.islice(enumerate(self._first_lines()), max(rows, default=0) + 1))
        return [f"{self.name}:{lines[row]}" if row in lines else f"{self.name} row {row + 1}" for row in rows]

    def _first_lines(self) -> Iterator[int]:
        """The line where each row begins."""
        with Path(self.name).open(encoding="utf-8-sig", newline="", errors="replace") as file:
            if self.suffix in _JSON:
                yield from (number for number, line in enumerate(file, 1) if line.strip())
                return
            reader = csv.reader(file, delimiter=self.separator)
            with contextlib.suppress(csv.Error):
                before = 0
                for number, _ in enumerate(reader):
                    if number:
                        yield before + 1
                    before = reader.line_num


@contextlib.contextmanager
def opened(input: Input, spill: Path) -> Iterator[Table]:
    """The table of an input; texts and names are NFC, blank text is missing, wholly blank rows are left out.

    The result of a query is kept in a temporary directory inside `spill` meanwhile. Raises UserError.
    """
    if input.file is not None:
        frame, source = _file(input, Path(input.file))
        yield _table(frame, source)
    else:
        with tempfile.TemporaryDirectory(prefix=".plume-query-", dir=spill) as folder:
            frame, source = _query(str(input.sql), str(input.query), Path(folder), input.decimal)
            yield _table(frame, source)


def _table(frame: pl.LazyFrame, source: Source) -> Table:
    import polars as pl

    names = frame.collect_schema().names()
    composed = {name: unicodedata.normalize("NFC", name) for name in names}
    twice = [name for name in composed.values() if list(composed.values()).count(name) > 1]
    if twice or ROW in names:
        raise UserError(f"{source.name}: two columns are called {(twice or [ROW])[0]!r}", "rename one of them")
    text = pl.col(pl.String).str.normalize("NFC")
    frame = frame.rename(composed).with_row_index(ROW)
    frame = frame.with_columns(pl.when(text.str.strip_chars() != "").then(text).name.keep())
    filled = pl.any_horizontal(pl.col(list(composed.values())).is_not_null())
    counts = frame.select(all=pl.len(), filled=filled.sum()).collect(engine="streaming").row(0, named=True)
    if not counts["filled"]:
        raise UserError(f"{source.name} holds no row", "there is nothing to prepare")
    source = dataclasses.replace(source, blank_rows=counts["all"] - counts["filled"])
    if source.blank_rows:  # a filter over all columns makes every later pass read all of them
        frame = frame.filter(filled)
    return Table(frame, counts["filled"], source)


def _file(input: Input, file: Path) -> tuple[pl.LazyFrame, Source]:
    import polars as pl

    suffix = file.suffix.lower()
    separator = input.separator or _DELIMITED.get(suffix, "")
    if suffix not in _DELIMITED and (input.separator or input.null_values):
        raise UserError(f"{file}: `separator` and `null_values` are for .csv and .tsv files", "remove them")
    try:
        digest = _sha256(file)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"{file}: {reason}", "check the path; relative paths start where you are") from None
    if suffix in _DELIMITED:
        _check_header(file, separator)
        nulls = input.null_values or None
        frame = pl.scan_csv(file, infer_schema=False, separator=separator, null_values=nulls)
    elif suffix in _JSON:
        frame = _scan_json_lines(file)
    elif suffix == ".parquet":
        frame = pl.scan_parquet(file)
    else:
        raise UserError(f"{file} is no table", "name a .csv, .tsv, .jsonl, .ndjson or .parquet file")
    return frame, Source(str(file), digest, suffix, separator, input.decimal)


def _check_header(file: Path, separator: str) -> None:
    """Two columns of one name, and a whole header taken for one column, are told before anything runs."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream, delimiter=separator), [])
    except UnicodeDecodeError:
        hint = f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {file} > {file.stem}.utf8{file.suffix}"
        raise UserError(f"{file} is not UTF-8", hint) from None
    except csv.Error as error:
        raise UserError(f"{file}:1: the header cannot be read: {error}", "write the names of the columns") from None
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise UserError(f"{file}:1: two columns are called {twice[0]!r}", "rename one of them in the file")
    likely = next((mark for mark in ";\t|," if mark != separator and mark in "".join(header)), None)
    if len(header) == 1 and likely:
        raise UserError(f"{file}:1: the header has no {separator!r}", f"add to `input`:  separator: {likely!r}")


def _query(url: str, query: str, folder: Path, decimal: str) -> tuple[pl.LazyFrame, Source]:
    """The rows of a query, kept as JSON lines so that every pass sees the same."""
    name, spilled = sql.safe_name(url), folder / "rows.jsonl"
    faults: list[Finding] = []
    with spilled.open("w", encoding="utf-8", newline="\n") as file:
        for found in sql.records(url, query):
            if isinstance(found, Finding):
                faults.append(found)
                continue
            try:
                file.write(json.dumps(found.value, ensure_ascii=False, allow_nan=False) + "\n")
            except ValueError:  # NaN, an infinity, or half a surrogate pair
                hint = "leave it out in the query"
                raise UserError(f"{name} row {found.line}: a value that JSON cannot hold", hint) from None
    if faults:
        raise DataError(f"{name}: not every value of the query is text, a number or a date", faults)
    return _scan_json_lines(spilled), Source(name, _sha256(spilled), "sql", "", decimal)


def _scan_json_lines(file: Path) -> pl.LazyFrame:
    """With the types of all rows, not of the first few."""
    import polars as pl

    return pl.scan_ndjson(file, schema=pl.scan_ndjson(file, infer_schema_length=None).collect_schema())


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
