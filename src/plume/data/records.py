"""From a file, a directory or a database to raw values with their lines, lazily, each by the reader made for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from plume.data import columnar, compressed, sql, tables
from plume.data.json_array import array_values
from plume.data.json_fault import Fault
from plume.data.json_text import Value, values
from plume.data.lines import first_mark, lines, opened
from plume.errors import UserError
from plume.types import Finding

Layout = Literal["jsonl", "json", "csv", "tsv", "text", "parquet", "dataset", "sql"]
_SUFFIXES: dict[str, Layout] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".parquet": "parquet",
}
_COMPRESSED = (".gz", ".zst", ".zstd")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be read; what is left out is recognised."""

    split_documents: bool = False
    prompt_column: str | None = None
    completion_column: str | None = None
    query: str | None = None
    layout: Layout | None = None


def shown(path: str) -> str:
    """What to call a file or database wherever it is named: without the password."""
    return sql.safe_name(path) if sql.is_url(path) else path


def layout_of(path: str, reading: Reading) -> Layout:
    """What a file is: by what was asked, its name, and its first character. Raises UserError."""
    if reading.layout:
        return reading.layout
    if sql.is_url(path):
        return "sql"
    if _is_directory(path) and columnar.is_dataset_directory(path):
        return "dataset"
    name = Path(path)
    suffix = (Path(name.stem) if name.suffix.lower() in _COMPRESSED else name).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    with plain(path) as stream:
        return "json" if first_mark(stream) in ("{", "[") else "text"


def _is_directory(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # no path at all: opening it will say why
        return False


def records(path: str, reading: Reading, name: str) -> Iterator[Value | Fault | Finding]:
    """The values of a file that has rows, in order; `name` is what findings call it.

    Raises UserError when it cannot be opened at all.
    """
    layout = layout_of(path, reading)
    if layout == "sql":
        if not reading.query:
            raise UserError(f"{sql.safe_name(path)}: no query", "say which rows: --query 'SELECT prompt, completion …'")
        yield from sql.records(path, reading.query)
    elif layout == "dataset":
        yield from columnar.dataset_directory(path)
    elif layout == "parquet":
        yield from columnar.parquet(path)
    elif layout in ("csv", "tsv"):
        with plain(path) as stream:
            yield from tables.records(lines(stream, name), name, "\t" if layout == "tsv" else None)
    else:
        with plain(path) as stream:
            mark = first_mark(stream)
        with plain(path) as stream:
            yield from array_values(stream, name) if mark == "[" else values(lines(stream, name))


def has_json_lines(path: str, reading: Reading) -> bool:
    """Is it an uncompressed file with one object a line, as far as its beginning tells?"""
    if Path(path).suffix.lower() in _COMPRESSED or layout_of(path, reading) not in ("json", "jsonl"):
        return False
    with opened(path) as stream:
        first = stream.readline(2**20)
        return first.startswith(b"{") and first.rstrip().endswith(b"}")


@contextlib.contextmanager
def plain(path: str) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed."""
    with opened(path) as stream:
        yield compressed.opened(stream, path)
