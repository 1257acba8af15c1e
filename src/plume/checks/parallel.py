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
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from plume.checks.run import Examination, Examined, conclude, see_rows
from plume.checks.selection import EVERYTHING, Selection
from plume.data.fields import Census, Form
from plume.data.json_fault import Fault
from plume.data.json_text import Value, values
from plume.data.lines import is_file, lines
from plume.data.read import chosen, read, understand
from plume.data.records import Reading, has_json_lines, shown
from plume.errors import PlumeError
from plume.events import Read
from plume.processors import cores
from plume.types import Finding

_PART = 8 * 2**20  # bytes
_LARGEST_PART = 16 * _PART  # a file that cannot be cut into smaller ones is read by one process, line by line
_TRIES = 200  # lines looked at for a place to cut, before looking further on


class _Cut(NamedTuple):
    """Where a part of a file lies, in bytes, and the number of its first line."""

    start: int
    size: int
    first_line: int


@dataclass(frozen=True, slots=True)
class _Whole:
    file: str
    name: str
    reading: Reading
    selection: Selection


@dataclass(frozen=True, slots=True)
class _Part:
    whole: _Whole
    cut: _Cut
    forms: tuple[Form, ...]


def examining(
    path: str | os.PathLike[str],
    reading: Reading | None = None,
    selection: Selection = EVERYTHING,
    *,
    name: str | None = None,
    processes: int | None = None,
) -> Generator[Read, None, Examined]:
    """Check a file of any size without keeping it: yields how far the reading is, returns what was found.

    `processes` is by default the number of cores for a large file, and 1 for a small one.
    Raises UserError when the file cannot be opened.
    """
    file, reading = os.fspath(path), reading or Reading()
    name = name or shown(file)
    total = Path(file).stat().st_size if is_file(Path(file)) else 0
    wanted = processes or (cores() if total > 4 * _PART else 1)
    if wanted > 1 and total and has_json_lines(file, reading):
        cuts = list(_cuts(Path(file), total))
        if max(cut.size for cut in cuts) <= _LARGEST_PART:
            return (yield from _in_parts(_Whole(file, name, reading, selection), cuts, wanted))
    so_far = Examination(name, selection)
    for line in see_rows(read(file, reading, name=name), so_far):
        yield Read(line, None)
    return conclude(so_far)


def _in_parts(whole: _Whole, cuts: Sequence[_Cut], processes: int) -> Generator[Read, None, Examined]:
    census = Census()
    for found in _values(_Part(whole, cuts[0], ())):
        if isinstance(found, Value):
            census.see(found.value)
    forms = chosen(census, whole.reading, whole.name)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin)
    try:
        while True:
            so_far, census, done = Examination(whole.name, whole.selection), Census(), 0
            parts = [_Part(whole, cut, forms) for cut in cuts]
            for part, (examined, counted) in zip(parts, pool.map(_examine_part, parts), strict=True):
                so_far.merge(examined)
                census.merge(counted)
                done += part.cut.size
                yield Read(done, sum(cut.size for cut in cuts))
            decided = chosen(census, whole.reading, whole.name)
            if decided == forms:
                return conclude(so_far)
            forms = decided
    except BrokenProcessPool:
        reason = "a process that read a part of the file was ended, most likely for want of memory"
        raise PlumeError(f"{whole.name}: {reason}", "close other programs, or check a part of the file") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """Rows come and go by the thousand and hold no cycles: looking for garbage so often finds none. And a worker
    ends with the process that asked for it, however that one ended."""
    gc.set_threshold(200_000, 50, 50)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _examine_part(part: _Part) -> tuple[Examination, Census]:
    census = Census()

    def counted(found: Iterator[Value | Fault | Finding]) -> Iterator[Value | Fault | Finding]:
        for item in found:
            if isinstance(item, Value):
                census.see(item.value)
            yield item

    whole = part.whole
    so_far = Examination(whole.name, whole.selection)
    for _ in see_rows(understand(counted(_values(part)), part.forms, whole.name, whole=False), so_far):
        pass
    return so_far, census


def _values(part: _Part) -> Iterator[Value | Fault | Finding]:
    with Path(part.whole.file).open("rb") as stream:
        stream.seek(part.cut.start)
        raw = io.BytesIO(stream.read(part.cut.size))
    return values(lines(raw, part.whole.name, part.cut.first_line))


def _cuts(path: Path, total: int) -> Iterator[_Cut]:
    start, line = 0, 1
    with path.open("rb") as stream:
        while start < total:
            end = _cut(stream, start + _PART, total)
            yield _Cut(start, end - start, line)
            stream.seek(start)
            while stream.tell() < end:
                line += stream.read(min(2**20, end - stream.tell())).count(b"\n")
            start = end


def _cut(stream: io.BufferedReader, near: int, total: int) -> int:
    """The first place from `near` on between two lines that are whole objects, or the end."""
    while near < total:
        stream.seek(near)
        stream.readline(_PART)
        whole = False
        for line in islice(iter(lambda: stream.readline(_PART), b""), _TRIES):
            if not line.isspace():
                before, whole = whole, _is_object(line)
                if before and whole:
                    return stream.tell() - len(line)
        near = stream.tell() + _PART
    return total


def _is_object(line: bytes) -> bool:
    try:
        return line.lstrip().startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
