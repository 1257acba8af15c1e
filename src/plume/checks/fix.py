"""`--fix`: a corrected copy in canonical JSON lines, a journal of every change, and the rows that were left out.

Works in rounds, since one repair may show the next (two rows are the same once both are cleaned); a round reads the
copy that the last one wrote. The last round changes nothing, so the copy has nothing left to fix.
"""

from __future__ import annotations

import codecs
import json
import re
import shutil
import tempfile
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from plume import similar
from plume.checks.duplicates import asked
from plume.checks.near import columns, first_equal
from plume.checks.repair import REPAIRS, Repair, each, ended, reread, spaced
from plume.checks.rules import Batch
from plume.checks.run import Examination, see_rows
from plume.checks.selection import EVERYTHING, Selection
from plume.data import rows
from plume.data.fields import Form, form_of
from plume.data.json_fault import Fault
from plume.data.json_text import Value, canonical
from plume.data.read import forms, read
from plume.data.records import Reading, layout_of, plain, records
from plume.errors import UserError
from plume.files import write_atomic
from plume.types import Example, Finding, Source

_ROUNDS = 10
_WHOLE = ("D102", "D106")
_ENDS = ("before the closing", "is not closed")  # faults of an array after its last whole row
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_PRIVATE = ("D210", "D211")  # the journal does not repeat what was taken out


@dataclass
class Fixed:
    """What was done: rows written and dropped, changes by code."""

    rows: int = 0
    dropped: int = 0
    changes: Counter[str] = field(default_factory=Counter)


@dataclass
class _Round:
    """One pass over one file: which rows go and which repairs are called for."""

    path: str
    name: str
    reading: Reading
    lines: array[int]  # the original line of each of its rows; empty in the first round
    drop: dict[int, Finding]
    repairs: dict[str, Repair]
    pairs: bool  # every row is one question with its answer
    whole: list[str]  # what is put right by writing the rows anew

    def origin(self, line: int | None) -> int | None:
        return self.lines[line - 1] if self.lines and line else line


def fix(path: str, out: Path, reading: Reading | None = None, selection: Selection = EVERYTHING) -> Fixed:
    """Write `out`, `out` + ".journal.jsonl" and `out` + ".dropped.jsonl".

    Raises UserError when there is nothing to read or a file is in the way.
    """
    reading = reading or Reading()
    if layout_of(path, reading) == "text":
        raise UserError(f"{path}: --fix corrects rows; this is plain text", "give it rows of prompt and completion")
    targets = [out, *(out.with_name(out.name + suffix) for suffix in (".journal.jsonl", ".dropped.jsonl"))]
    for target in targets:
        if target.exists():
            raise UserError(f"{target} exists already", "name another file: nothing is overwritten")
    done = Fixed()
    with tempfile.TemporaryDirectory(prefix=".plume-fix-", dir=out.parent) as folder:
        work = Path(folder)
        with (
            (work / "journal").open("w", encoding="utf-8") as journal,
            (work / "dropped").open("w", encoding="utf-8") as dropped,
        ):
            source, lines = _in_utf8(path, work, done, journal), array("q")
            for number in range(_ROUNDS):
                target = work / f"round-{number}.jsonl"
                before = sum(done.changes.values())
                one = _plan(source, path, reading if number == 0 else Reading(), lines, selection)
                lines = _write(one, target, journal, dropped, done)
                source = str(target)
                if number and sum(done.changes.values()) == before:
                    break
        if not done.rows:
            raise UserError(f"{path}: no row could be kept", "correct the columns first: `plume check` names them")
        for made, wanted in zip((Path(source), work / "journal", work / "dropped"), targets, strict=True):
            write_atomic(wanted, made.read_bytes())
    return done


def _in_utf8(path: str, work: Path, done: Fixed, journal: TextIO) -> str:
    """The file, or a copy of it in UTF-8 when it begins as UTF-16 or UTF-32 does."""
    if not Path(path).is_file():
        return path
    with Path(path).open("rb") as stream:
        head = stream.read(4)
    codec = next((codec for mark, codec in _MARKS.items() if head.startswith(mark)), None)
    if codec is None:
        return path
    copy = work / Path(path).name
    with (
        Path(path).open(encoding=codec, errors="replace", newline="") as old,
        copy.open("w", encoding="utf-8", newline="") as new,
    ):
        shutil.copyfileobj(old, new)
    done.changes["D107"] += 1
    _put(journal, {"line": None, "code": "D107", "what": f"read as {codec}, written as UTF-8"})
    return str(copy)


def _plan(path: str, name: str, reading: Reading, lines: array[int], selection: Selection) -> _Round:
    """Read once: which codes are there, which rows repeat or are superseded."""
    examination = Examination(path, selection)
    superseded = _Superseded()

    def watched() -> Iterator[Example | Finding]:
        found = read(path, reading)
        while batch := list(islice(found, 1000)):
            superseded.see(Batch(path, [item for item in batch if isinstance(item, Example)]))
            yield from batch

    for _ in see_rows(watched(), examination):
        pass
    codes = {code for code, count in examination.counts.items() if count}
    told = [finding for survey in examination.surveys for finding in survey.findings()]
    codes |= {finding.code for finding in told if finding.code != "D205" or "order" in finding.message}
    again = {
        found.source.line: found for found in reversed(told) if found.code in ("D201", "D202") and found.source.line
    }
    drop = superseded.findings(path) if selection.wants("D203") else {}
    repairs = {code: made() for code, made in REPAIRS.items() if code in codes and selection.wants(code)}
    if "D208" in repairs:
        repairs["D208"] = ended({finding.quote for finding in told if finding.code == "D208"})
    if "D107" in repairs and any(finding.code == "D107" and "space" in finding.message for finding in told):
        repairs["D107 "] = each(spaced)
    whole = [code for code in _WHOLE if examination.counts[code]]
    whole += ["D107" for finding in examination.findings if "byte order mark" in finding.message]
    return _Round(path, name, reading, lines, drop or again, repairs, superseded.pairs, whole)


class _Superseded:
    """D203: rows whose question has another answer further down."""

    def __init__(self) -> None:
        self.lines, self.questions, self.answers = array("q"), bytearray(), bytearray()
        self.pairs = True

    def see(self, batch: Batch) -> None:
        self.pairs = self.pairs and all(len(example.messages) == 2 for example in batch.examples)
        for line, question, reply, _ in asked(batch):
            self.lines.append(line)
            self.questions += question
            self.answers += similar.digest(unicodedata.normalize("NFC", reply))

    def findings(self, file: str) -> dict[int, Finding]:
        if not self.lines:
            return {}
        count = len(self.lines)
        same_question = first_equal(columns(self.questions)[::-1])
        last = count - 1 - same_question[::-1]
        answers = first_equal(columns(self.answers))
        found = {}
        for row in np.flatnonzero(answers != answers[last]).tolist():
            line, kept = self.lines[row], self.lines[int(last[row])]
            message = f"line {kept} answers the same question otherwise; the last answer is kept"
            hint = "keep one answer"
            found[line] = Finding("D203", "error", Source(file, line), message, hint, (Source(file, kept),))
        return found


def _write(one: _Round, target: Path, journal: TextIO, dropped: TextIO, done: Fixed) -> array[int]:
    """Write the round's copy; returns the original line of each of its rows."""
    known = forms(one.path, one.reading)
    lines: array[int] = array("q")

    def leave_out(code: str, line: int | None, reason: str, row: Any) -> None:
        done.changes[code] += 1
        done.dropped += 1
        entry = {"line": one.origin(line), "code": code, "reason": reason}
        _put(journal, {**entry, "dropped": True})
        _put(dropped, {**entry, "row": row})

    done.rows = 0
    for code in one.whole:
        done.changes[code] += 1
        _put(journal, {"line": None, "code": code, "what": "all rows are written anew"})
    with target.open("w", encoding="utf-8") as copy:
        for found, raw in _with_raw(one):
            if isinstance(found, Finding):
                if found.severity == "error":
                    leave_out(found.code, found.source.line, found.message, raw)
                continue
            changes: list[dict[str, Any]] = []
            value, line = _value(found, raw, changes)
            if value is None:
                reason = found.reason if isinstance(found, Fault) else "not a row"
                leave_out("D101", line, reason, raw)
                continue
            example = _example(value, known, Source(one.name, line), changes)
            if isinstance(example, Finding):
                leave_out(example.code, line, example.message, value)
                continue
            if line in one.drop:
                leave_out(one.drop[line].code, line, _told(one, one.drop[line]), _row(example, one.pairs))
                continue
            repaired = _repair(example, one.repairs, changes)
            if isinstance(repaired, str):
                leave_out(repaired, line, "it cannot be repaired without a guess", _row(example, one.pairs))
                continue
            for change in changes:
                done.changes[change["code"]] += 1
                _put(journal, {"line": one.origin(line), **change})
            _put(copy, _row(repaired, one.pairs))
            lines.append(one.origin(line) or 0)
            done.rows += 1
    return lines


def _told(one: _Round, finding: Finding) -> str:
    """The reason with original line numbers."""
    others = ", ".join(str(one.origin(source.line)) for source in finding.related)
    reasons = {
        "D201": f"repeats line {others} word for word",
        "D202": f"nearly repeats line {others}",
        "D203": f"line {others} answers the same question otherwise; the last answer is kept",
    }
    return reasons[finding.code]


def _with_raw(one: _Round) -> Iterator[tuple[Value | Fault | Finding, Any]]:
    """What the reader found, and for what it could not read the raw text."""
    if layout_of(one.path, one.reading) not in ("jsonl", "json"):
        yield from ((found, None) for found in records(one.path, one.reading, one.name))
        return
    with plain(one.path) as stream:
        lines = enumerate(stream, 1)
        for found in records(one.path, one.reading, one.name):
            if isinstance(found, Fault):
                if found.spoilt:
                    yield found, _text(lines, *found.spoilt)
                    continue
                if not any(end in found.reason for end in _ENDS):
                    where = f"{one.name}:{found.line}:{found.column}"
                    message = f"{where}: {found.reason}; what follows cannot be told into rows"
                    raise UserError(message, found.hint)
                yield Finding("D101", "error", Source(one.name, found.line), found.reason, found.hint), None
            elif isinstance(found, Finding) and found.severity == "error" and found.source.line:
                raw = _text(lines, found.source.line, found.source.line)
                yield _recoded(found, raw) or found, raw
            else:
                yield found, None


def _text(lines: Iterator[tuple[int, bytes]], first: int, last: int) -> str:
    """Some lines as they stand; they are asked for in order."""
    wanted = []
    for number, raw in lines:
        if number >= first:
            wanted.append(_decoded(raw))
        if number >= last:
            break
    return "".join(wanted).rstrip("\r\n")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _recoded(found: Finding, raw: str) -> Value | None:
    """A line that is not UTF-8 but reads as a row in Windows-1252."""
    if found.code != "D107" or "�" in raw or not found.source.line:
        return None
    try:
        return Value(json.loads(raw), found.source.line, "recoded")
    except (ValueError, RecursionError):
        return None


def _value(found: Value | Fault, raw: Any, changes: list[dict[str, Any]]) -> tuple[Any, int]:
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


def _example(value: Any, known: tuple[Form, ...], source: Source, changes: list[dict[str, Any]]) -> Example | Finding:
    """The row as an example; numbers and booleans in the place of text are written as text."""
    form = form_of(value, known) if isinstance(value, dict) else known[0]
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


def _repair(example: Example, repairs: dict[str, Repair], changes: list[dict[str, Any]]) -> Example | str:
    """The example after every repair, or the code of the one that left nothing of it."""
    for code, repair in repairs.items():
        repaired = repair(example)
        if repaired is None:
            return code
        for position, (old, new) in enumerate(zip(example.messages, repaired.messages, strict=True)):
            if old.content != new.content:
                change: dict[str, Any] = {"code": code.strip(), "message": position, "role": old.role}
                if code not in _PRIVATE:
                    change |= {"before": old.content, "after": new.content}
                changes.append(change)
        example = repaired
    return example


def _row(example: Example, pairs: bool) -> dict[str, Any]:
    """The canonical form: pairs if all rows are, else messages."""
    roles = [message.role for message in example.messages]
    if pairs and roles == ["user", "assistant"]:
        return {"prompt": example.messages[0].content, "completion": example.messages[1].content}
    if roles == ["assistant"]:
        return {"text": example.messages[0].content}
    return {"messages": [{"role": message.role, "content": message.content} for message in example.messages]}


def _put(file: TextIO, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    file.write((json.dumps(value) if _SURROGATE.search(text) else text) + "\n")
