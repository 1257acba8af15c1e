"""Files become examples. Every example knows its file and line; every row that cannot be read is a finding."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from plume.data import rows
from plume.data.fields import PARALLEL, Census, Form, form_of
from plume.data.json_fault import Fault
from plume.data.json_text import Value
from plume.data.lines import MAX_LINE, lines, opened
from plume.data.records import Layout, Reading, layout_of, plain, records, shown
from plume.errors import UserError
from plume.types import Example, Finding, Message, Source

_TABLES: tuple[Layout, ...] = ("csv", "tsv", "parquet", "dataset", "sql")
ONCE = frozenset({"D102", "D103", "D106"})  # warnings with these codes are about the file, not about a row


def read(
    path: str | os.PathLike[str], reading: Reading | None = None, *, name: str | None = None
) -> Iterator[Example | Finding]:
    """Yield the examples of a file and a finding for every row that is not one, in file order.

    JSON lines, a JSON array or pretty-printed JSON objects, CSV, TSV, Parquet, a dataset directory, or a database
    URL with a query; anything else is plain text: one document, or with `split_documents` one for each stretch
    between blank lines. gzip and zstd are seen through. Raises UserError when the file cannot be opened at all.
    """
    file, reading = os.fspath(path), reading or Reading()
    name = name or shown(file)
    if layout_of(file, reading) == "text":
        yield from _text(file, name, split_documents=reading.split_documents)
    else:
        yield from understand(records(file, reading, name), forms(file, reading), name)


def forms(path: str, reading: Reading) -> tuple[Form, ...]:
    """How the rows of a file are to be understood, decided over all of them.

    Raises UserError when a column was named that no row has.
    """
    layout = layout_of(path, reading)
    census = Census()
    found = records(path, reading, shown(path))
    values = (item for item in found if isinstance(item, Value))
    for value in itertools.islice(values, 1) if layout in _TABLES else values:
        census.see(value.value)
    return chosen(census, reading, shown(path))


def chosen(census: Census, reading: Reading, file: str) -> tuple[Form, ...]:
    """The forms of a file of which all names have been counted."""
    if not (reading.prompt_column or reading.completion_column):
        return census.forms()
    names = census.names()
    for column in (reading.prompt_column, reading.completion_column):
        if column and column not in names:
            near = difflib.get_close_matches(column, names, 1)
            raise UserError(
                f'{file}: no row has a column "{column}"',
                f'did you mean "{near[0]}"?' if near else f"the columns are {', '.join(names[:20]) or 'none'}",
            )
    first = census.forms()[0]
    prompt, completion = reading.prompt_column or first.prompt, reading.completion_column or first.completion
    return (Form(prompt=prompt or "prompt", completion=completion or "completion", named=True),)


def understand(
    values: Iterable[Value | Fault | Finding], forms: tuple[Form, ...], file: str, *, whole: bool = True
) -> Iterator[Example | Finding]:
    """Values with their lines become examples; warnings about the file as a whole are said once.

    `whole` says that the values are all of the file's, so that none at all is a finding.
    """
    said: set[str] = set()
    empty = whole
    known = frozenset([PARALLEL, *(column for form in forms for column in form.columns)])
    for found in values:
        if isinstance(found, Finding):
            empty = empty and found.severity != "error"
            yield found
            continue
        empty = False
        if isinstance(found, Fault):
            yield Finding("D101", "error", Source(file, found.line, found.column), found.reason, found.hint)
            continue
        source, value = Source(file, found.line), found.value
        if found.layout != "line" and found.layout != "table":
            yield from _once(said, _about_layout(found, file, source))
        form = forms[0]
        if isinstance(value, dict):
            if len(forms) > 1:
                form = form_of(value, forms)
                if form is not forms[0]:
                    yield from _once(said, _about_form(form, forms[0], source))
            if not known.issuperset(value):
                yield from _once(said, _about_fields(value, known, source))
        if found.duplicate_keys or found.huge_numbers:
            yield from _about_values(found, source)
        example, findings = rows.to_example(value, form, source)
        yield from findings
        if example:
            yield example
    if empty:
        message, hint = "the file is empty: it holds no row", f"write one row a line: {rows.SHAPE}"
        yield Finding("D215", "error", Source(file), message, hint)


def _once(said: set[str], findings: Iterator[Finding]) -> Iterator[Finding]:
    for finding in findings:
        if finding.message not in said:
            said.add(finding.message)
            yield finding


def _about_layout(found: Value, file: str, source: Source) -> Iterator[Finding]:
    jsonl = Path(file).suffix.lower() in (".jsonl", ".ndjson")
    if found.layout == "array" and jsonl:
        message = "the file is one JSON array, not JSON lines; it is read as what it is"
        yield Finding("D102", "warning", source, message, "name it .json, or write one object a line")
    if found.layout == "spread":
        message = "the object is spread over several lines; it is read as one row"
        yield Finding("D102", "warning", source, message, "write one object a line")


def _about_form(form: Form, first: Form, source: Source) -> Iterator[Finding]:
    message = f"rows with {form} stand among rows with {first}; each is read as what it is (said once for the file)"
    yield Finding("D106", "warning", source, message, "write all rows in one form")


def _about_fields(value: dict[str, object], known: frozenset[str], source: Source) -> Iterator[Finding]:
    for name in value:
        if name not in known:
            message = f'the field "{name[:80]}" is not used (said once for the file)'
            yield Finding("D103", "warning", source, message, "nothing to do, unless it was meant to be learnt")


def _about_values(found: Value, source: Source) -> Iterator[Finding]:
    for name in dict.fromkeys(found.duplicate_keys):
        message = f'the key "{name[:80]}" stands twice in one object; the last value counts'
        yield Finding("D111", "warning", source, message, "keep one of them", quote=name[:80])
    for digits in found.huge_numbers:
        message = f"the number {digits[:20]} is beyond what a double can hold"
        yield Finding("D111", "warning", source, message, "write it as a string", quote=digits[:80])


def _text(path: str, name: str, *, split_documents: bool) -> Iterator[Example | Finding]:
    """Documents, or the whole text as one; one longer than any row may be comes in stretches."""
    with opened(path) as stream:
        if not stream.read(1):
            hint = f"write one row a line: {rows.SHAPE}"
            yield Finding("D215", "error", Source(name), "the file is empty", hint)
            return
    found = 0
    with plain(path) as stream:
        document: list[str] = []
        first, size = 1, 0
        for line in lines(stream, name):
            if isinstance(line, Finding):
                yield line
                if line.severity == "error":
                    return
                continue
            blank = split_documents and not line.text.strip()
            if blank or size + len(line.text) > MAX_LINE:
                if document:
                    yield _document(document, name, first, cut=not blank, split=split_documents)
                    found += 1
                document, size = [], 0
            if not blank:
                first = first if document else line.number
                document += [line.text, line.end]
                size += len(line.text) + 1
    text = "".join(document)
    if text.strip():
        yield _document(document, name, first, cut=False, split=split_documents)
    elif not found:
        yield Finding("D215", "error", Source(name), "the file holds only white space", "write some text")


def _document(pieces: list[str], name: str, first: int, *, cut: bool, split: bool) -> Example:
    text = "".join(pieces)
    if split and not cut:
        text = text.replace("\r\n", "\n").removesuffix("\n")
    return Example((Message("assistant", text),), Source(name, first), cut=cut)
