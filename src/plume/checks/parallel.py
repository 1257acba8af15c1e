"""A large file of JSON lines is checked in parts, by several processes; the result is that of one reading.

The parts are cut between two lines that are each a whole JSON object. Which columns hold question and answer is
decided over the whole file: parts are read as the first one suggests, and read again should the count of all names
decide otherwise.
"""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from plume.checks.run import Examination, Examined, conclude, see_rows
from plume.checks.selection import EVERYTHING, Selection
from plume.data.fields import Census, Form
from plume.data.json_fault import Fault
from plume.data.json_text import Value, values
from plume.data.lines import is_file, lines
from plume.data.read import chosen, read, understand
from plume.data.records import Reading, has_json_lines
from plume.types import Finding, Read

_PART = 8 * 2**20  # bytes
_TRIES = 200  # lines looked at for a place to cut


@dataclass(frozen=True, slots=True)
class _Part:
    file: str
    name: str
    start: int
    size: int
    first_line: int
    forms: tuple[Form, ...]
    selection: Selection


def examining(
    path: str | os.PathLike[str],
    reading: Reading | None = None,
    selection: Selection = EVERYTHING,
    *,
    name: str | None = None,
    processes: int | None = None,
) -> Generator[Read, None, Examined]:
    """Check a file of any size without keeping it: yields how far the reading is, returns what was found.

    `processes` is by default the number of processors for a large file, and 1 for a small one.
    Raises UserError when the file cannot be opened.
    """
    file, reading = os.fspath(path), reading or Reading()
    name = name or file
    total = Path(file).stat().st_size if is_file(Path(file)) else 0
    wanted = processes or (os.cpu_count() or 1 if total > 4 * _PART else 1)
    if wanted > 1 and total and has_json_lines(file, reading):
        return (yield from _in_parts(file, name, reading, selection, wanted))
    so_far = Examination(name, selection)
    for line in see_rows(read(file, reading, name=name), so_far):
        yield Read(line, None)
    return conclude(so_far)


def _in_parts(
    file: str, name: str, reading: Reading, selection: Selection, processes: int
) -> Generator[Read, None, Examined]:
    total = Path(file).stat().st_size
    cuts = list(_cuts(Path(file), total))
    census = Census()
    for found in _values(_Part(file, name, *cuts[0], (), selection)):
        if isinstance(found, Value):
            census.see(found.value)
    forms = chosen(census, reading, name)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_rarely_collect) as pool:
        while True:
            whole, census, done = Examination(name, selection), Census(), 0
            parts = [_Part(file, name, *cut, forms, selection) for cut in cuts]
            for part, (so_far, counted) in zip(parts, pool.map(_examine_part, parts), strict=True):
                whole.merge(so_far)
                census.merge(counted)
                done += part.size
                yield Read(done, total)
            decided = chosen(census, reading, name)
            if decided == forms:
                return conclude(whole)
            forms = decided


def _rarely_collect() -> None:
    """Rows come and go by the thousand and hold no cycles: looking for garbage so often finds none."""
    gc.set_threshold(200_000, 50, 50)


def _examine_part(part: _Part) -> tuple[Examination, Census]:
    census = Census()

    def counted(found: Iterator[Value | Fault | Finding]) -> Iterator[Value | Fault | Finding]:
        for item in found:
            if isinstance(item, Value):
                census.see(item.value)
            yield item

    so_far = Examination(part.name, part.selection)
    for _ in see_rows(understand(counted(_values(part)), part.forms, part.name, whole=False), so_far):
        pass
    return so_far, census


def _values(part: _Part) -> Iterator[Value | Fault | Finding]:
    with Path(part.file).open("rb") as stream:
        stream.seek(part.start)
        raw = io.BytesIO(stream.read(part.size))
    return values(lines(raw, part.name, part.first_line))


def _cuts(path: Path, total: int) -> Iterator[tuple[int, int, int]]:
    """Start, size and first line number of each part."""
    start, line = 0, 1
    with path.open("rb") as stream:
        while start < total:
            end = _cut(stream, start + _PART, total)
            yield start, end - start, line
            stream.seek(start)
            while stream.tell() < end:
                line += stream.read(min(2**20, end - stream.tell())).count(b"\n")
            start = end


def _cut(stream: io.BufferedReader, near: int, total: int) -> int:
    """The first place from `near` on between two lines that are whole objects, or the end."""
    if near >= total:
        return total
    stream.seek(near)
    stream.readline()
    whole = False
    for line in islice(stream, _TRIES):
        before, whole = whole, _is_object(line)
        if before and whole:
            return stream.tell() - len(line)
    return _cut(stream, stream.tell() + _PART, total) if stream.tell() < total else total


def _is_object(line: bytes) -> bool:
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
