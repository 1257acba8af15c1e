"""Files become examples. Every example knows its file and line; every row that cannot be read is a finding."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from plume.data import json_text, rows
from plume.errors import UserError
from plume.types import Example, Finding, Message, Source

_JSON_SUFFIXES = {".jsonl", ".json", ".ndjson"}
_TEXT_SUFFIXES = {".txt", ".md", ".text"}
_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def read(path: str | os.PathLike[str], *, split_documents: bool = False) -> Iterator[Example | Finding]:
    """Yield the examples of a file and a finding for every row that is not one, in file order.

    JSON lines, a JSON array or pretty-printed JSON objects of `prompt`/`completion` or `messages`; anything
    else is plain text: one document, or with `split_documents` one for each stretch between blank lines.
    Raises UserError when the file cannot be opened at all.
    """
    file = os.fspath(path)
    text_or_finding = _decode(_load(file), file)
    if isinstance(text_or_finding, Finding):
        yield text_or_finding
        return
    text = text_or_finding
    if text.startswith("\ufeff"):
        hint = "save as UTF-8 without BOM; it is skipped here"
        yield Finding("D107", "warning", Source(file, 1), "the file begins with a byte order mark", hint)
        text = text[1:]
    if _is_json(file, text):
        yield from _json_rows(text, file)
    else:
        yield from _documents(text, file, split_documents)


def _load(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{file}: no such file", _near_files(file)) from None
    except IsADirectoryError:
        raise UserError(f"{file} is a directory, not a file", "name the data file inside it") from None
    except PermissionError:
        raise UserError(f"{file}: permission denied", "make it readable: chmod u+r FILE") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file}: cannot be opened ({reason})", "check the path") from None


def _near_files(file: str) -> str:
    folder = Path(file).parent
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        names = []
    near = difflib.get_close_matches(Path(file).name, names, 1)
    return f"did you mean {folder / near[0]}?" if near else "check the path; relative paths start where you are"


def _decode(raw: bytes, file: str) -> str | Finding:
    if not raw:
        return Finding("D215", "error", Source(file), "the file is empty", f"write one row a line: {rows.SHAPE}")
    for mark, name in _ENCODINGS.items():
        if raw.startswith(mark):
            return _wrong_encoding(file, name)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _undecodable(raw, error.start, file)
    if "\0" in text:
        if re.match(rb"(?:[\x09-\x7e]\x00){4}|(?:\x00[\x09-\x7e]){4}", raw):
            return _wrong_encoding(file, "UTF-16")
        line = text.count("\n", 0, text.index("\0")) + 1
        return Finding(
            "D107",
            "error",
            Source(file, line),
            "the file holds zero bytes: it is binary, not text",
            "export it as text",
        )
    return text


def _wrong_encoding(file: str, name: str) -> Finding:
    hint = f"convert it: iconv -f {name} -t UTF-8 {file} > {Path(file).stem}.utf8{Path(file).suffix}"
    return Finding("D107", "error", Source(file, 1), f"the file is {name}, not UTF-8", hint)


def _undecodable(raw: bytes, position: int, file: str) -> Finding:
    start = raw.rfind(b"\n", 0, position) + 1
    source = Source(file, raw.count(b"\n", 0, position) + 1, len(raw[start:position].decode("utf-8")) + 1)
    control = sum(byte < 9 or 13 < byte < 32 for byte in raw[:4096])
    if control:
        return Finding("D107", "error", source, "the file is binary, not text", "export it as UTF-8 text")
    latin = raw[position : position + 1].decode("latin-1")
    message = f"byte 0x{raw[position]:02x} is not UTF-8; it reads {latin!r} in Latin-1"
    hint = f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {file} > {Path(file).stem}.utf8{Path(file).suffix}"
    return Finding("D107", "error", source, message, hint)


def _is_json(file: str, text: str) -> bool:
    suffix = Path(file).suffix.lower()
    if suffix in _JSON_SUFFIXES or suffix in _TEXT_SUFFIXES:
        return suffix in _JSON_SUFFIXES
    return text.lstrip()[:1] in ("{", "[")


def _json_rows(text: str, file: str) -> Iterator[Example | Finding]:
    said: set[str] = set()
    count = 0
    for found in json_text.values(text):
        count += 1
        if isinstance(found, json_text.Fault):
            yield Finding("D101", "error", Source(file, found.line, found.column), found.reason, found.hint)
            continue
        source = Source(file, found.line)
        yield from _once(said, _about_layout(found, file, source))
        example, findings = rows.to_example(found.value, source)
        yield from findings
        yield from _once(said, _about_fields(found, source))
        if example:
            yield example
    if not count:
        yield Finding("D215", "error", Source(file), "the file holds no row", f"write one row a line: {rows.SHAPE}")


def _once(said: set[str], findings: Iterator[tuple[str, Finding]]) -> Iterator[Finding]:
    for key, finding in findings:
        if key not in said:
            said.add(key)
            yield finding


def _about_layout(found: json_text.Value, file: str, source: Source) -> Iterator[tuple[str, Finding]]:
    jsonl = Path(file).suffix.lower() in (".jsonl", ".ndjson")
    if found.layout == "array" and jsonl:
        message = "the file is one JSON array, not JSON lines; it is read as what it is"
        yield "array", Finding("D102", "warning", source, message, "name it .json, or write one object a line")
    if found.layout == "spread":
        message = "the object is spread over several lines; it is read as one row"
        yield "spread", Finding("D102", "warning", source, message, "write one object a line")


def _about_fields(found: json_text.Value, source: Source) -> Iterator[tuple[str, Finding]]:
    for name in rows.extra_fields(found.value):
        message = f'the field "{name}" is not used (said once for the file)'
        yield (
            f"field {name}",
            Finding("D103", "warning", source, message, "nothing to do, unless it was meant to be learnt"),
        )
    for name in found.duplicate_keys:
        message = f'the key "{name}" stands twice in one object; the last value counts'
        yield f"key {source}", Finding("D111", "warning", source, message, "keep one of them")
    for digits in found.huge_numbers:
        message = f"the number {digits[:20]} is beyond what a double can hold"
        yield f"number {source}", Finding("D111", "warning", source, message, "write it as a string")


def _documents(text: str, file: str, split_documents: bool) -> Iterator[Example | Finding]:
    if not text.strip():
        yield Finding("D215", "error", Source(file), "the file holds only white space", "write some text")
    elif not split_documents:
        yield Example((Message("assistant", text),), Source(file, 1))
    else:
        lines = text.replace("\r\n", "\n").split("\n")
        for blank, group in itertools.groupby(range(len(lines)), key=lambda index: not lines[index].strip()):
            if not blank:
                numbers = list(group)
                document = "\n".join(lines[index] for index in numbers)
                yield Example((Message("assistant", document),), Source(file, numbers[0] + 1))
