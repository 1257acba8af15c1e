"""The rows of a file as `--fix` sees them: read, put right where the text can only mean one thing, or left out."""

from __future__ import annotations

import functools
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plume.checks.repair import reread
from plume.data import rows
from plume.data.called import written
from plume.data.compressed import DamagedArchive
from plume.data.fields import TOOLS, Form, form_of, recognise
from plume.data.json_fault import Fault
from plume.data.json_text import Value, canonical
from plume.data.lines import first_mark
from plume.data.read import forms
from plume.data.records import Reading, layout_of, plain, records
from plume.errors import UserError
from plume.types import Example, Finding, Source

Change = dict[str, Any]
_ENDS = ("before the closing", "is not closed")  # faults of an array after its last whole row
_DAMAGED = "the compressed file is damaged"
_READ = frozenset(("prompt", "completion", "messages", "text"))  # what the canonical form calls its own columns
_SAID = frozenset(("role", "content", "tool_calls", "tool_call_id", "weight")), frozenset(("from", "value"))


@dataclass
class Row:
    """A row that can be written, or what it was left out for; `line` is the one of the original file."""

    line: int | None
    example: Example | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # columns that are not learnt
    changes: list[Change] = field(default_factory=list)
    whole: tuple[str, ...] = ()  # codes that are put right by writing the row anew
    code: str = ""
    reason: str = ""
    raw: Any = None


def canonical_row(example: Example, extra: dict[str, Any], *, pairs: bool) -> dict[str, Any]:
    """Pairs if all rows are, else messages; then the columns that are not learnt."""
    roles = [message.role for message in example.messages]
    if pairs and roles == ["user", "assistant"] and not example.tools:
        row: dict[str, Any] = {"prompt": example.messages[0].content, "completion": example.messages[1].content}
    elif roles == ["assistant"]:
        row = {"text": example.messages[0].content}
    else:
        row = {"messages": [written(message) for message in example.messages]}
        if example.tools:
            row["tools"] = json.loads(example.tools)
    return {**row, **extra}


def rows_of(path: str, name: str, reading: Reading, origins: array[int]) -> Iterator[Row]:
    """Every row of a file; `origins` holds the original line of each line, and is empty for the original itself.

    Raises UserError when the file cannot be read to its end.
    """
    known = forms(path, reading)
    jsonl = Path(path).suffix.lower() in (".jsonl", ".ndjson")
    for found, raw in _with_raw(path, name, reading):
        if isinstance(found, Finding):
            line = _origin(found.source.line, origins)
            if found.severity == "error":
                yield Row(line, code=found.code, reason=found.message, raw=raw)
            elif "byte order mark" in found.message:
                yield Row(line, whole=("D107",))
            continue
        row = _row(found, raw, known, name)
        row.line = _origin(row.line, origins)
        if isinstance(found, Value) and (found.layout == "spread" or (found.layout == "array" and jsonl)):
            row.whole += ("D102",)
        yield row


def _origin(line: int | None, origins: array[int]) -> int | None:
    return origins[line - 1] if origins and line else line


def _row(found: Value | Fault, raw: Any, known: tuple[Form, ...], name: str) -> Row:
    changes: list[Change] = []
    value, line = _value(found, raw, changes)
    if value is None:
        reason = found.reason if isinstance(found, Fault) else "not a row"
        return Row(line, code="D101", reason=reason, raw=raw)
    form = form_of(value, known) if isinstance(value, dict) else known[0]
    example = _example(value, form, Source(name, line), changes)
    if isinstance(example, Finding):
        return Row(line, code=example.code, reason=example.message, raw=value)
    extra = _extra(value, form, example, changes)
    return Row(line, example, extra, changes, whole=("D106",) if form is not known[0] else ())


def _extra(value: dict[str, Any], form: Form, example: Example, changes: list[Change]) -> dict[str, Any]:
    """The columns that are not learnt, but those that the written row could not hold."""
    roles = tuple(message.role for message in example.messages)
    extra = {}
    for key, held in value.items():
        if key in form.columns and (key != TOOLS or example.tools):
            continue
        if _misread(key, roles):
            changes.append(
                {"code": "D103", "what": f'"{key}" was left out: it would be learnt', "before": _writable(held)}
            )
            continue
        try:
            json.dumps(held, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            changes.append({"code": "D103", "what": f'"{key}" was left out: JSON cannot hold it'})
            continue
        extra[key] = held
    turns = value.get(form.messages) if form.messages else None
    for position, turn in enumerate(turns if isinstance(turns, list) else ()):
        read = _SAID["from" in turn and "role" not in turn]
        lost = {key: held for key, held in turn.items() if key not in read}
        if lost:
            said = ", ".join(f'"{key}"' for key in lost)
            changes.append({"code": "D103", "message": position, "what": f"{said} left out", "before": _writable(lost)})
    return extra


@functools.lru_cache(maxsize=256)
def _misread(key: str, roles: tuple[str, ...]) -> bool:
    """Would a column of that name, beside those of the written row, be taken for one of them?"""
    written: list[tuple[str, ...]] = [("text",) if roles == ("assistant",) else ("messages",)]
    if roles == ("user", "assistant"):
        written.append(("prompt", "completion"))
    return key in _READ or any(recognise((*own, key)) != recognise(own) for own in written)


def _writable(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return value


def _with_raw(path: str, name: str, reading: Reading) -> Iterator[tuple[Value | Fault | Finding, Any]]:
    """What the reader found, and for what it could not read the raw text."""
    layout = layout_of(path, reading)
    if layout not in ("jsonl", "json", "csv", "tsv"):
        yield from ((found, None) for found in records(path, reading, name))
        return
    with plain(path) as stream:
        in_array = layout in ("jsonl", "json") and first_mark(stream) == "["
    with plain(path) as stream:
        lines = enumerate(stream, 1)
        last: Value | Fault | Finding | None = None
        for found in records(path, reading, name):
            last = found
            if isinstance(found, Fault) and not found.spoilt:
                if layout in ("jsonl", "json") and not any(end in found.reason for end in _ENDS):
                    raise _lost(f"{name}:{found.line}:{found.column}", found.reason, found.hint)
                yield Finding("D101", "error", Source(name, found.line), found.reason, found.hint), None
            elif isinstance(found, Fault) and found.spoilt:
                yield found, _text(lines, *found.spoilt)
            elif isinstance(found, Finding) and found.severity == "error" and found.source.line:
                if in_array and not found.message.startswith(_DAMAGED):
                    raise _lost(str(found.source), found.message, found.hint)
                raw = _text(lines, found.source.line, found.source.line)
                yield (_recoded(found, raw) if layout in ("jsonl", "json") else None) or found, raw
            else:
                yield found, None
        unread = isinstance(last, Finding) and last.severity == "error" and last.code in ("D101", "D107")
        if isinstance(last, Finding) and unread and not last.message.startswith(_DAMAGED) and _more(lines):
            raise _lost(str(last.source), last.message, last.hint)


def _lost(where: str, reason: str, hint: str | None) -> UserError:
    return UserError(f"{where}: {reason}; what follows cannot be told into rows", hint)


def _more(lines: Iterator[tuple[int, bytes]]) -> bool:
    """Does anything follow the last line that was read?"""
    try:
        return any(raw.strip() for _, raw in lines)
    except DamagedArchive:
        return False


def _text(lines: Iterator[tuple[int, bytes]], first: int, last: int) -> str:
    """Some lines as they stand, as far as they can be read; they are asked for in order."""
    wanted = []
    try:
        for number, raw in lines:
            if number >= first:
                wanted.append(_decoded(raw))
            if number >= last:
                break
    except DamagedArchive:
        pass
    return "".join(wanted).rstrip("\r\n")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _recoded(found: Finding, raw: str) -> Value | None:
    """A line that is not UTF-8 but reads as a row in Windows-1252."""
    if found.code != "D107" or "�" in raw or "\0" in raw or not found.source.line:
        return None
    try:
        return Value(json.loads(raw), found.source.line, "recoded")
    except (ValueError, RecursionError):
        return None


def _value(found: Value | Fault, raw: Any, changes: list[Change]) -> tuple[Any, int]:
    """The row's value, repaired if it can only have meant one thing."""
    if isinstance(found, Value):
        if found.layout == "recoded":
            changes.append({"code": "D107", "what": "read as Windows-1252, written as UTF-8"})
        for key in found.duplicate_keys:
            changes.append({"code": "D111", "what": f'the key "{key}" stood twice; the last value was kept'})
        return found.value, found.line
    line = found.spoilt[0] if found.spoilt else found.line
    value = reread(raw) if raw else None
    if isinstance(value, dict) and value:
        changes.append({"code": "D101", "what": found.reason, "before": raw})
        return value, line
    return None, line


def _example(value: Any, form: Form, source: Source, changes: list[Change]) -> Example | Finding:
    """The row as an example; numbers and booleans in the place of text are written as text."""
    if isinstance(value, dict):
        for name in form.required:
            if isinstance(value.get(name), bool | int | float) and not form.messages:
                value = {**value, name: canonical(value[name])}
                changes.append({"code": "D104", "what": f'"{name}" was no text', "after": value[name]})
            elif isinstance(value.get(name), dict | list) and name == form.completion:
                changes.append({"code": "D104", "what": f'"{name}" was an object or array; written as JSON text'})
    example, findings = rows.to_example(value, form, source)
    if example is None:
        return next(finding for finding in findings if finding.severity == "error")
    return example
