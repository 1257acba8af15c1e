"""Two data sets from one: with an attribute, and the same rows without it, checked on the files written."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from plume.data import rows
from plume.data.fields import Form, form_of
from plume.data.json_fault import Fault
from plume.data.leaks import Leak, find_leaks
from plume.data.listed import Listed, fold
from plume.data.read import forms
from plume.data.records import Reading, layout_of, records
from plume.data.strip import Rules, Stripped, strip_row, texts_of
from plume.errors import DataError, UserError
from plume.files import atomic_directory
from plume.types import Example, Finding, Source

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Attribute:
    """What to remove: keys of JSON (also columns), regular expressions, listed values. No rule: the key `name`."""

    name: str
    fields: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Derived:
    """The pair of data sets in `path`; `removals` counts by rule, `leaks` is what is left of the attribute."""

    path: Path
    rows: int
    changed: int
    dropped: int
    removals: dict[str, int]
    leaks: tuple[Leak, ...]


def derive(file: Path, attribute: Attribute, output_dir: Path) -> Derived:
    """Write with.jsonl, without.jsonl, dropped.jsonl and derive.json to a new or empty directory.

    Raises UserError when nothing would be removed or the directory holds something, DataError when rows of the
    file are at fault.
    """
    rules, fields = _compile(attribute)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise UserError(f"{output_dir} is not an empty directory", "name another --output-dir")
    table = [(line, row, _strip(row, rules, file, line)) for line, row in _read(file)]
    _refuse_no_effect(fields, attribute, table, file)
    kept = [(line, one) for line, _, one in table if one.row is not None]
    dropped = [{"line": line, "reason": one.reason} for line, _, one in table if one.row is None]
    if not kept:
        raise UserError(f"{file}: every row is about {attribute.name} alone: nothing is left", "narrow the rules")
    values = [(line, one.value) for line, _, row in table for one in row.removed if one.rule == "field"]
    with atomic_directory(output_dir) as building:
        _write(building / "with.jsonl", (strip_row(row, Rules()).row for _, row, _ in table))
        _write(building / "without.jsonl", (one.row for _, one in kept))
        _write(building / "dropped.jsonl", dropped)
        with (building / "without.jsonl").open(encoding="utf-8") as written:
            leaks, unsearched = find_leaks(map(json.loads, written), [line for line, _ in kept], rules, values)
        counts = Counter(one.rule for _, _, row in table for one in row.removed)
        changed = sum(bool(one.removed) for _, one in kept)
        derived = Derived(output_dir, len(table), changed, len(dropped), dict(counts), tuple(leaks))
        journal = _journal(file, attribute, fields, derived, unsearched, building)
        journal["lines"] = [
            {"line": line, "dropped": one.row is None, "removed": [asdict(removal) for removal in one.removed]}
            for line, _, one in table
            if one.removed
        ]
        (building / "derive.json").write_text(json.dumps(journal, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return derived


def read_values(text: str) -> tuple[str, ...]:
    """Values from a file, one a line, when `text` names one; else from a list with commas. Raises UserError."""
    named = Path(text)
    looks_like_file = "," not in text and (named.suffix in {".txt", ".csv", ".tsv"} or named.parent != Path())
    if named.is_file():
        try:
            lines = named.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{text} cannot be read: {error}", "write one value a line, in UTF-8") from None
    elif looks_like_file:
        raise UserError(f"{text}: no such file", "name a file with one value a line, or list values: a,b,c")
    else:
        lines = text.split(",")
    values = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not values:
        raise UserError(f"{text or 'the list'} holds no value", "write one value a line, or list them: a,b,c")
    return values


def _compile(attribute: Attribute) -> tuple[Rules, tuple[str, ...]]:
    some = attribute.fields or attribute.patterns or attribute.values
    fields = attribute.fields if some else (attribute.name,)
    if not all(map(str.strip, fields)):
        raise UserError("the name of a field is empty", "name a key, such as --field age")
    for value in attribute.values:
        if not any(map(str.isalnum, value)):
            raise UserError(f"the value {value!r} holds neither letter nor digit", "list words or numbers")
    patterns = tuple(map(_pattern, attribute.patterns))
    return Rules(frozenset(map(fold, fields)), patterns, Listed(attribute.values)), fields


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(unicodedata.normalize("NFC", text))
    except (re.error, RecursionError, OverflowError) as error:
        hint = "it must be a regular expression as Python's `re` reads it"
        raise UserError(f"--pattern {text}: {error}", hint) from None
    if pattern.match(""):
        raise UserError(f"--pattern {text} matches nothing at all, everywhere", "make it match at least one character")
    return pattern


def _read(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and canonical row of every row. Raises DataError with every row at fault."""
    name = str(file)
    if file.is_dir():
        raise UserError(f"{file} is a directory, not a file", "name the data file inside it")
    if layout_of(name, Reading()) == "text":
        raise UserError(f"{file} is plain text, which has no rows", f"write one row a line: {rows.SHAPE}")
    known = forms(name, Reading())
    faults: list[Finding] = []
    count = 0
    for found in records(name, Reading(), name):
        count += 1
        if isinstance(found, Finding):
            faults.append(found)
        elif isinstance(found, Fault):
            faults.append(Finding("D101", "error", Source(name, found.line, found.column), found.reason, found.hint))
        else:
            form = form_of(found.value, known) if isinstance(found.value, dict) else known[0]
            example, findings = rows.to_example(found.value, form, Source(name, found.line))
            faults += findings
            if example and (example.tools or any(message.tool_calls for message in example.messages)):
                message = "the row has tools: nothing would be removed from them, and all of it learnt"
                hint = "derive from rows without tools"
                faults.append(Finding("D110", "error", example.source, message, hint))
            elif example:
                yield found.line, _row(example, found.value, form)
    faults = [finding for finding in faults if finding.severity == "error"]
    if faults:
        raise DataError(f"{file} holds rows that cannot be used", faults, f"correct them first: plume check {file}")
    if not count:
        raise UserError(f"{file} holds no row", f"write one row a line: {rows.SHAPE}")


def _row(example: Example, value: dict[str, Any], form: Form) -> dict[str, Any]:
    """The example in the first of the forms that every reader knows, with its further columns."""
    roles = [message.role for message in example.messages]
    texts = [message.content for message in example.messages]
    if roles == ["assistant"]:
        row: dict[str, Any] = {"text": texts[0]}
    elif roles == ["user", "assistant"]:
        row = {"prompt": texts[0], "completion": texts[1]}
    else:
        row = {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]}
    return row | {name: item for name, item in value.items() if name not in form.columns}


def _strip(row: dict[str, Any], rules: Rules, file: Path, line: int) -> Stripped:
    try:
        return strip_row(row, rules)
    except RecursionError:
        raise UserError(f"{file}:{line}: the JSON is nested too deeply to read", "flatten the object") from None


def _refuse_no_effect(
    fields: Sequence[str],
    attribute: Attribute,
    table: Sequence[tuple[int, dict[str, Any], Stripped]],
    file: Path,
) -> None:
    """A field that no row has is a slip of the pen; so is a request that removes nothing."""
    keys = Counter(text for _, row, _ in table for _, text, is_key in texts_of(row) if is_key)
    for name in fields:
        if fold(name) not in {fold(key) for key in keys}:
            near = difflib.get_close_matches(name, keys, 1)
            known = ", ".join(key for key, _ in keys.most_common(10))
            otherwise = f"the keys are: {known}" if keys else "the answers are text: use --pattern or --values"
            raise UserError(
                f"{file}: no row has the field {name!r}", f"did you mean --field {near[0]}?" if near else otherwise
            )
    if not any(one.removed for *_, one in table):
        rules = [*(f"--pattern {text}" for text in attribute.patterns), *(["--values"] if attribute.values else [])]
        hint = "look at the spelling; patterns heed case unless they begin with (?i)"
        raise UserError(f"{file}: {' and '.join(rules)} matches nothing in any row", hint)


def _write(path: Path, values: Iterable[dict[str, Any] | None]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _journal(
    file: Path,
    attribute: Attribute,
    fields: Sequence[str],
    derived: Derived,
    unsearched: Sequence[str],
    building: Path,
) -> dict[str, Any]:
    names = ("with.jsonl", "without.jsonl", "dropped.jsonl")
    return {
        "format": FORMAT,
        "plume": metadata.version("plume-lm"),
        "source": {"file": str(file), "sha256": _sha256(file)},
        "attribute": {
            "name": attribute.name,
            "fields": list(fields),
            "patterns": list(attribute.patterns),
            "values": list(attribute.values),
        },
        "counts": {
            "rows": derived.rows,
            "changed": derived.changed,
            "dropped": derived.dropped,
            "removals": derived.removals,
        },
        "sha256": {name: _sha256(building / name) for name in names},
        "leaks": [asdict(leak) for leak in derived.leaks],
        "values_not_searched": list(unsearched),
    }
