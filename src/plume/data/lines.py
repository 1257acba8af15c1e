"""Bytes become numbered lines of text, lazily: a line at a time, whatever the size of the file."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from plume.data.compressed import DamagedArchive
from plume.errors import UserError
from plume.types import Finding, Source

MAX_LINE = 16 * 2**20  # bytes; a longer line is a finding, and is not held in memory
_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_BOM = "\ufeff".encode()
_UTF16 = re.compile(rb"(?:[\x09-\x7e]\x00){4}|(?:\x00[\x09-\x7e]){4}")


class Line(NamedTuple):
    """One physical line without its end; numbers begin at 1."""

    number: int
    text: str
    end: str = "\n"


def is_file(path: Path) -> bool:
    """Is there such a file? A path that no system could hold names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """A readable binary stream of a file. Raises UserError when it cannot be opened, or only once."""
    try:
        if stat.S_ISFIFO(Path(file).stat().st_mode):
            raise UserError(f"{file} is a pipe, and files are read more than once", "… | plume check -")
        stream = Path(file).open("rb")  # noqa: SIM115
    except FileNotFoundError:
        raise UserError(f"{file}: no such file", _near_files(file)) from None
    except IsADirectoryError:
        raise UserError(f"{file} is a directory, not a file", "name the data file inside it") from None
    except PermissionError:
        raise UserError(f"{file}: permission denied", "make it readable: chmod u+r FILE") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file}: cannot be opened ({reason})", "check the path") from None
    with stream:
        yield stream


def spooled_stdin() -> Path:
    """Standard input as a file, since it is read more than once; the caller removes it."""
    with tempfile.NamedTemporaryFile("wb", prefix="plume-stdin-", delete=False) as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    return Path(copy.name)


def _near_files(file: str) -> str:
    folder = Path(file).parent
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        names = []
    near = difflib.get_close_matches(Path(file).name, names, 1)
    return f"did you mean {folder / near[0]}?" if near else "check the path; relative paths start where you are"


def lines(stream: BinaryIO, file: str, first: int = 1) -> Iterator[Line | Finding]:
    """The lines of a UTF-8 stream; a line that cannot be decoded is a finding, binary data ends the reading.

    `first` is the number of the first line, for a part of a file.
    """
    number = first - 1
    while True:
        try:
            raw = stream.readline(MAX_LINE + 1)
        except DamagedArchive as error:
            yield damaged(Source(file, number + 1), error)
            return
        if not raw:
            return
        number += 1
        if number == 1:
            finding, raw = _opening(raw, file)
            if finding:
                yield finding
                if finding.severity == "error":
                    return
        if len(raw) > MAX_LINE and not raw.endswith(b"\n"):
            yield _endless(stream, Source(file, number))
            continue
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            yield undecodable(raw, error.start, Source(file, number))
            if number == 1 and _binary(raw):
                return
            continue
        if "\0" in text:
            yield _zero_bytes(raw, file, number)
            if number == 1 and (_binary(raw) or _UTF16.search(raw)):
                return
            continue
        yield Line(number, text[:-1]) if text.endswith("\n") else Line(number, text, "")


def _opening(raw: bytes, file: str) -> tuple[Finding | None, bytes]:
    """What the first bytes say about the encoding, and the first line without a byte order mark."""
    for mark, name in _ENCODINGS.items():
        if raw.startswith(mark):
            return _wrong_encoding(file, name), raw
    if raw.startswith(_BOM):
        hint = "save as UTF-8 without BOM; it is skipped here"
        found = Finding("D107", "warning", Source(file, 1), "the file begins with a byte order mark", hint)
        return found, raw[len(_BOM) :]
    return None, raw


def _endless(stream: BinaryIO, source: Source) -> Finding:
    while (rest := stream.readline(2**20)) and not rest.endswith(b"\n"):
        pass
    message = f"the line is longer than {MAX_LINE >> 20} MiB and is skipped"
    return Finding("D101", "error", source, message, "split the row: no model reads so much at once")


def _zero_bytes(raw: bytes, file: str, number: int) -> Finding:
    if _UTF16.search(raw):
        return _wrong_encoding(file, "UTF-16")
    message = "the line holds zero bytes, as binary files do, and is left out"
    column = raw[: raw.index(0)].decode("utf-8")
    return Finding("D107", "error", Source(file, number, len(column) + 1), message, "export it as text")


def _binary(raw: bytes) -> bool:
    """Are a tenth of the first bytes no text at all?"""
    head = raw[:4096]
    return 10 * sum(byte < 9 or 13 < byte < 32 for byte in head) >= len(head)


def _wrong_encoding(file: str, name: str) -> Finding:
    hint = f"convert it: iconv -f {name} -t UTF-8 {file} > {Path(file).stem}.utf8{Path(file).suffix}"
    return Finding("D107", "error", Source(file, 1), f"the file is {name}, not UTF-8", hint)


def undecodable(raw: bytes, position: int, source: Source) -> Finding:
    """D107 at the first byte of a line that is not UTF-8, or that the whole is not text at all."""
    source = Source(source.file, source.line, len(raw[:position].decode("utf-8")) + 1)
    if _binary(raw):
        return Finding("D107", "error", source, "the file is binary, not text", "export it as UTF-8 text")
    byte = raw[position : position + 1]
    try:
        meant = byte.decode("cp1252")
    except UnicodeDecodeError:  # one of the five that Windows leaves free
        meant = byte.decode("latin-1")
    message = f"byte 0x{raw[position]:02x} is not UTF-8; it reads {meant!r} in Latin-1 (Windows-1252)"
    name = Path(source.file)
    hint = f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {name} > {name.stem}.utf8{name.suffix}"
    return Finding("D107", "error", source, message, hint)


def damaged(source: Source, error: DamagedArchive) -> Finding:
    """D101 where a compressed file breaks off."""
    return Finding("D101", "error", source, f"the compressed file is damaged: {error}", "fetch or compress it again")


def first_mark(stream: BinaryIO) -> str:
    """The first character of a stream that is not white space (of ASCII), or "" when none can be read."""
    try:
        head = stream.read(4).removeprefix(_BOM)
        while not head.strip():
            head = stream.read(io.DEFAULT_BUFFER_SIZE)
            if not head:
                return ""
    except DamagedArchive:  # who reads the lines will say so
        return ""
    return head.strip()[:1].decode("latin-1")
