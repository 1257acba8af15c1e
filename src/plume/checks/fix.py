"""`--fix`: a corrected copy in canonical JSON lines, a journal of every change, and the rows that were left out.

Works in rounds, since one repair may show the next (two rows are the same once both are cleaned); a round reads the
copy that the last one wrote. The last round changes nothing, so the copy has nothing left to fix.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from plume.checks.fix_plan import Plan, plan
from plume.checks.fix_rows import Change, Row, canonical_row, rows_of
from plume.checks.selection import EVERYTHING, Exceptions, Selection, exceptions
from plume.data.records import Reading, layout_of
from plume.errors import PlumeError, UserError
from plume.redact import PERSONAL, SECRETS, Marks, redact
from plume.types import Example, Finding

_ROUNDS = 10
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
class _Records:
    """The journal and the rows left out, as they grow. Secrets are replaced by the marks that the copy has, and so are
    personal data where the copy has none, also in lines that are no rows."""

    journal: TextIO
    dropped: TextIO
    done: Fixed
    marks: Marks
    excepted: Exceptions
    selection: Selection

    def change(self, line: int | None, change: Change) -> None:
        self.done.changes[change["code"]] += 1
        entry = self._safe({"line": line, **change})
        if entry.get("redacted") and "before" in entry and entry["before"] == change["before"]:
            entry["before"] = None  # the secret stood there in pieces
        _put(self.journal, entry)

    def leave_out(self, code: str, line: int | None, reason: str, row: Any) -> None:
        self.done.changes[code] += 1
        self.done.dropped += 1
        entry = {"line": line, "code": code, "reason": reason}
        _put(self.journal, self._safe({**entry, "dropped": True}))
        _put(self.dropped, self._safe({**entry, "row": row}))

    def _safe(self, entry: dict[str, Any]) -> dict[str, Any]:
        personal = self.selection.wants("D210") and (entry["line"], "D210") not in self.excepted
        kinds = (*SECRETS, *PERSONAL, "name") if personal else tuple(SECRETS)
        safe: dict[str, Any] = self._without(kinds, entry)
        return safe if safe == entry else {**safe, "redacted": True}

    def _without(self, kinds: tuple[str, ...], value: Any) -> Any:
        if isinstance(value, str):
            return redact(value, kinds, self.selection.names, self.marks)
        if isinstance(value, dict):
            return {self._without(kinds, key): self._without(kinds, held) for key, held in value.items()}
        return [self._without(kinds, held) for held in value] if isinstance(value, list) else value


def fix(path: str, out: Path, reading: Reading | None = None, selection: Selection = EVERYTHING) -> Fixed:
    """Write `out`, `out` + ".journal.jsonl" and `out` + ".dropped.jsonl".

    Raises UserError when there is nothing to read, the file cannot be read to its end, or a file is in the way, and
    PlumeError when the copy cannot be written.
    """
    reading = reading or Reading()
    if not out.name or out.is_dir():
        raise UserError(f"{out} is a directory, not a file", "name the corrected copy: --fix qa.fixed.jsonl")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no directory {out.parent}", f"make it first: mkdir -p {out.parent}")
    if layout_of(path, reading) == "text":
        raise UserError(f"{path}: --fix corrects rows; this is plain text", "give it rows of prompt and completion")
    targets = [out.with_name(out.name + suffix) for suffix in (".journal.jsonl", ".dropped.jsonl", "")]
    for target in reversed(targets):
        if target.exists():
            raise UserError(f"{target} exists already", "name another file: nothing is overwritten")
    try:
        with tempfile.TemporaryDirectory(prefix=".plume-fix-", dir=out.parent) as folder:
            work = Path(folder)
            copy, done = _rounds(path, work, reading, selection)
            if not done.rows:
                raise UserError(f"{path}: no row could be kept", "correct the columns first: `plume check` names them")
            _place([work / "journal", work / "dropped", copy], targets)
    except OSError as error:
        message = f"{out}: the corrected copy cannot be written ({error.strerror or error}); nothing was kept"
        raise PlumeError(
            message, "make room or name a file elsewhere; --fix needs about twice the room of the file"
        ) from None
    return done


def _rounds(path: str, work: Path, reading: Reading, selection: Selection) -> tuple[Path, Fixed]:
    """The last round's copy."""
    done, marks = Fixed(), dict[tuple[str, str], str]()
    with (
        (work / "journal").open("w", encoding="utf-8") as journal,
        (work / "dropped").open("w", encoding="utf-8") as dropped,
    ):
        records = _Records(journal, dropped, done, marks, exceptions(path), selection)
        source, origins = _in_utf8(path, work, records), array("q")
        for number in range(_ROUNDS):
            target, before = work / f"round-{number}.jsonl", done.changes.total()
            one = reading if number == 0 else Reading()
            planned = plan(rows_of(source, path, one, origins), path, selection, records.excepted, marks)
            lines = _write(rows_of(source, path, one, origins), planned, target, records)
            if source != path:
                Path(source).unlink()
            source, origins = str(target), lines
            if number and done.changes.total() == before:
                break
    return Path(source), done


def _place(made: list[Path], targets: list[Path]) -> None:
    """Put the files where they belong, all or none."""
    for file in made:
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    placed: list[Path] = []
    try:
        for file, target in zip(made, targets, strict=True):
            file.replace(target)
            placed.append(target)
    except BaseException:
        for target in placed:
            with contextlib.suppress(OSError):
                target.unlink()
        raise


def _in_utf8(path: str, work: Path, records: _Records) -> str:
    """The file, or a copy of it in UTF-8 when it begins as UTF-16 or UTF-32 does."""
    if not Path(path).is_file():
        return path
    with Path(path).open("rb") as stream:
        head = stream.read(4)
    codec = next((codec for mark, codec in _MARKS.items() if head.startswith(mark)), None)
    if codec is None:
        return path
    copy = work / "source" / Path(path).name
    copy.parent.mkdir()
    with (
        Path(path).open(encoding=codec, errors="replace", newline="") as old,
        copy.open("w", encoding="utf-8", newline="") as new,
    ):
        shutil.copyfileobj(old, new)
    records.change(None, {"code": "D107", "what": f"read as {codec}, written as UTF-8"})
    return str(copy)


def _write(rows: Iterator[Row], planned: Plan, target: Path, records: _Records) -> array[int]:
    """Write the round's copy; returns the original line of each of its rows."""
    lines: array[int] = array("q")
    number = 0
    for code in planned.whole:
        records.change(None, {"code": code, "what": "all rows are written anew"})
    with target.open("w", encoding="utf-8") as copy:
        for row in rows:
            if row.code:
                records.leave_out(row.code, row.line, row.reason, row.raw)
            if row.example is None:
                continue
            number += 1
            as_read = canonical_row(row.example, row.extra, pairs=planned.pairs)
            if number in planned.drop:
                finding = planned.drop[number]
                records.leave_out(finding.code, row.line, _told(planned, finding), as_read)
                continue
            repaired = _repair(row.example, number, row, planned, records.excepted)
            if isinstance(repaired, str):
                records.leave_out(repaired, row.line, "it cannot be repaired without a guess", as_read)
                continue
            for change in row.changes:
                records.change(row.line, change)
            _put(copy, canonical_row(repaired, row.extra, pairs=planned.pairs))
            lines.append(row.line or 0)
    records.done.rows = len(lines)
    return lines


def _told(planned: Plan, finding: Finding) -> str:
    """The reason with original line numbers."""
    others = ", ".join(str(planned.lines[source.line - 1]) for source in finding.related if source.line)
    reasons = {
        "D201": f"repeats line {others} word for word",
        "D202": f"nearly repeats line {others}",
        "D203": f"line {others} answers the same question otherwise; the last answer is kept",
    }
    return reasons[finding.code]


def _repair(example: Example, number: int, row: Row, planned: Plan, excepted: Exceptions) -> Example | str:
    """The example after every repair called for, or the code of the one that left nothing of it.

    A conversation of several replies is not given up for one: it stays without that repair. The journal shows nothing
    of a row with personal data or secrets, which stand there until their repair.
    """
    due = [
        (code, repair)
        for code, repair, flagged in planned.repairs
        if (flagged is None or number in flagged) and (row.line, code) not in excepted
    ]
    private = any(code in _PRIVATE for code, _ in due)
    for code, repair in due:
        repaired = repair(example)
        if repaired is None:
            if len(example.messages) > 3:
                continue
            return code
        for position, (old, new) in enumerate(zip(example.messages, repaired.messages, strict=True)):
            if old.said != new.said:
                change: Change = {"code": code, "message": position, "role": old.role}
                if not private:
                    change |= {"before": old.said, "after": new.said}
                row.changes.append(change)
        example = repaired
    return example


def _put(file: TextIO, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    file.write((json.dumps(value) if _SURROGATE.search(text) else text) + "\n")
