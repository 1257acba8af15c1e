"""D204 and D205: are answers that are meant to be JSON valid, and of one mould?

A file may hold several kinds of answer, each with its own keys. What is compared: values under one key path, the
order of one set of keys, and a rare set of keys with a common one that differs by a single key.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, NoReturn, Self

from plume.checks.rules import Batch, survey
from plume.checks.tally import Tally, quoted, share
from plume.data.json_fault import fault
from plume.types import Finding, Source

_ENOUGH = 5  # answers before a majority is one
_SHAPES = 2000  # beyond so many different shapes the answers have no mould
_FREE = 20  # shapes; when there are more, and most answers have one of their own, none is the usual one
_LINES = 5  # lines remembered for each shape
_NUMBER_TEXT = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_KINDS = {str: "text", int: "number", float: "number", bool: "boolean", type(None): "null"}
_NAMES = {
    "text": "text",
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
    "object": "an object",
    "array": "an array",
    "number as text": "a number in quotes",
    "boolean as text": "a boolean in quotes",
}

_BOOLEANS = frozenset(("true", "false", "True", "False"))
_OPENINGS = frozenset('{["-0123456789tfn \t\r\n')  # how a JSON value may begin

_AT_ONCE = 50  # answers parsed together
_MARK = "the next answer of the file"

Path = str
Outline = tuple[str, tuple[str, ...], tuple[Any, ...]]  # kind, names of keys, outlines of what it holds
_Keys = tuple[Path, frozenset[str]]  # where an object stands, and its keys in any order


class Shape(NamedTuple):
    """Of one answer: the kind of value at each path, and the keys of each object in their order."""

    kinds: tuple[tuple[Path, str], ...]
    keys: tuple[tuple[Path, tuple[str, ...]], ...]


@dataclass
class _Seen:
    count: int = 0
    first: list[Source] = field(default_factory=list)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODE = json.JSONDecoder(parse_constant=_refuse).decode


def _read(completion: str) -> Outline | Literal["scalar"] | None:
    """The outline of a JSON object or array; None for what is not JSON."""
    try:
        value = _DECODE(completion)
        return _outline(value) if isinstance(value, dict | list) else "scalar"
    except (ValueError, RecursionError):
        return None


def _outlines(completions: list[str]) -> list[Outline | Literal["scalar"] | None]:
    """What `_read` says of each; several objects are parsed as one array, in half the time."""
    if all(completion[0] in "{[" for completion in completions):
        joined = "[" + f',"{_MARK}",'.join(completions) + "]"
        between = len(completions) - 1
        try:
            values = _DECODE(joined)
            # With each mark between two values, no text can have held two values or a part of one.
            if values[1::2] == [_MARK] * between and len(values) == 2 * between + 1 and joined.count(_MARK) == between:
                return [_outline(value) for value in values[::2]]
        except (ValueError, RecursionError):
            pass
    return [_read(completion) if completion[0] in _OPENINGS else None for completion in completions]


def _outline(value: Any) -> Any:
    """A value without its values: the names and kinds alone, nested as it is."""
    kind = type(value)
    if kind is str:
        return _text_kind(value) if "+" <= value < ":" or value in _BOOLEANS else "text"
    if kind is dict:
        return "object", tuple(value), tuple([_outline(each) for each in value.values()])
    if kind is list:
        return "array", (), tuple(dict.fromkeys([_outline(each) for each in value]))
    return _KINDS[kind]


def _text_kind(value: str) -> str:
    if value in _BOOLEANS:
        return "boolean as text"
    return "number as text" if _NUMBER_TEXT.fullmatch(value) else "text"


def _shape(outline: Outline) -> Shape:
    kinds: dict[tuple[Path, str], None] = {}
    keys: dict[tuple[Path, tuple[str, ...]], None] = {}
    todo: list[tuple[Path, Any]] = [("", outline)]
    for path, item in todo:
        if isinstance(item, str):
            kinds[path, item] = None
            continue
        kind, names, inner = item
        kinds[path, kind] = None
        if kind == "object":
            keys[path, names] = None
            todo += [(f"{path}.{key}" if path else key, each) for key, each in zip(names, inner, strict=True)]
        else:
            todo += [(f"{path}[]", each) for each in inner]
    return Shape(tuple(kinds), tuple(keys))


@survey("D204", "D205")
@dataclass
class JSONAnswers:
    """Validity and mould of JSON answers; silent about files whose answers are something else."""

    replies: int = 0
    structured: int = 0
    broken: Tally = field(default_factory=Tally)
    outlines: dict[Outline, _Seen] = field(default_factory=dict)

    def see(self, batch: Batch) -> None:
        self.replies += len(batch.asked)
        for start in range(0, len(batch.asked), _AT_ONCE):
            rows = batch.asked[start : start + _AT_ONCE]
            outlines = _outlines([asked.completion for asked in rows])
            for asked, outline in zip(rows, outlines, strict=True):
                if isinstance(outline, tuple):
                    self.structured += 1
                    self._note(outline, asked.example.source)
                elif outline is None:
                    self.broken.add(functools.partial(_invalid, asked.completion, asked.example.source))

    def _note(self, outline: Outline, source: Source) -> None:
        seen = self.outlines.get(outline)
        if seen is None:
            if len(self.outlines) >= _SHAPES:
                return
            seen = self.outlines[outline] = _Seen()
        seen.count += 1
        if len(seen.first) < _LINES:
            seen.first.append(source)

    def merge(self, later: Self) -> None:
        self.replies += later.replies
        self.structured += later.structured
        self.broken.merge(later.broken)
        for outline, theirs in later.outlines.items():
            mine = self.outlines.setdefault(outline, _Seen())
            mine.count += theirs.count
            mine.first = (mine.first + theirs.first)[:_LINES]

    def findings(self) -> Iterator[Finding]:
        if self.replies >= _ENOUGH and 5 * self.structured >= 4 * self.replies:
            for finding in self.broken.findings(self.replies):
                said = f"{finding.message}; {share(self.structured, self.replies)} answers are JSON objects or arrays"
                yield replace(finding, message=said)
        if len(self.outlines) < _SHAPES and self.structured > 1:
            shapes: dict[Shape, _Seen] = {}
            for outline, seen in self.outlines.items():
                shape = _shape(outline)
                shapes[shape] = _sum([shapes[shape], seen]) if shape in shapes else seen
            if len(shapes) <= _FREE or 2 * len(shapes) <= self.structured:
                yield from _different_kinds(shapes)
                yield from _different_order(shapes)
                yield from _different_keys(shapes)


def _invalid(completion: str, source: Source) -> Finding:
    text = completion.strip()
    if not text.startswith(("{", "[")):
        message, hint = f"the answer is not JSON: {quoted(text)}", "write it as the others are, or drop the row"
        return Finding("D204", "error", source, message, hint, quote=text[:60])
    position, reason, hint = _cause(text)
    message = f"the answer is not valid JSON: {reason}, at character {position + 1} of {quoted(text)}"
    return Finding("D204", "error", source, message, hint, quote=text[position : position + 20] or text[-1:])


def _cause(text: str) -> tuple[int, str, str]:
    """Position, cause and remedy."""
    try:
        _DECODE(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return error.pos, "text follows the value", "remove what follows it"
        found = fault(text, error.pos, error.msg, 1)
        return error.pos, found.reason.removeprefix("not valid JSON (").removesuffix(")"), found.hint
    except RecursionError:
        return 0, "it is nested too deeply to read", "flatten it"
    except ValueError as error:
        return text.find(str(error).split()[0]), str(error), "write null, or a string"
    return 0, "it is not one value", "keep one"


# --- D205 ----------------------------------------------------------------------------------------


def _odd(seen: _Seen, message: str, hint: str, usual: _Seen, quote: str) -> Iterator[Finding]:
    """One finding a row for a few, or one for all."""
    if seen.count <= len(seen.first):
        for source in seen.first:
            yield Finding("D205", "warning", source, message, hint, (usual.first[0],), quote)
    else:
        said = f"{message}; so in {seen.count} rows"
        yield Finding("D205", "warning", seen.first[0], said, hint, (usual.first[0], *seen.first[1:]), quote)


def _sum(shapes: list[_Seen]) -> _Seen:
    first = sorted((source for seen in shapes for source in seen.first), key=lambda source: source.line or 0)
    return _Seen(sum(seen.count for seen in shapes), first[:_LINES])


def _schema(shape: Shape) -> str:
    fields = [f'"{path}": {kind}' for path, kind in shape.kinds if path and kind not in ("object", "array")]
    return "{" + ", ".join(fields[:8]) + (", …" if len(fields) > 8 else "") + "}"


def _different_kinds(shapes: dict[Shape, _Seen]) -> Iterator[Finding]:
    """Under one path: a number and a number in quotes, anywhere; other kinds when rare, among answers of one family."""
    everywhere: dict[Path, dict[str, list[Shape]]] = defaultdict(lambda: defaultdict(list))
    families: dict[_Keys, dict[str, list[Shape]]] = defaultdict(lambda: defaultdict(list))
    for shape in shapes:
        names = dict(shape.keys)
        for path, kind in shape.kinds:
            everywhere[path][kind].append(shape)
            if kind != "null":
                siblings = frozenset(names.get(path.rpartition(".")[0], ()))
                families[path, siblings]["text" if kind.endswith("as text") else kind].append(shape)
    mixed = set()
    for path, kinds in everywhere.items():
        for kind in ("number", "boolean"):
            if kind in kinds and f"{kind} as text" in kinds:
                mixed.add(path)
                yield from _other_kind(path, {name: kinds[name] for name in (kind, f"{kind} as text")}, shapes, least=1)
    for (path, _), kinds in families.items():
        if path and path not in mixed and len(kinds) > 1:
            yield from _other_kind(path, kinds, shapes, least=9)


def _other_kind(
    path: Path, kinds: dict[str, list[Shape]], shapes: dict[Shape, _Seen], *, least: int
) -> Iterator[Finding]:
    """All kinds but the usual one, where that is more than `least` times as frequent (or as frequent, for 1)."""
    counted = {kind: _sum([shapes[shape] for shape in held]) for kind, held in kinds.items()}
    usual = max(counted, key=lambda kind: counted[kind].count)
    for kind, seen in counted.items():
        if kind != usual and least * seen.count <= counted[usual].count:
            message = f'"{path}" is {_NAMES[kind]} here and {_NAMES[usual]} in {counted[usual].count} other answers'
            hint = f"write {_NAMES[usual]} everywhere: {_schema(kinds[usual][0])}"
            yield from _odd(seen, message, hint, counted[usual], path.rpartition(".")[2].removesuffix("[]"))


def _different_order(shapes: dict[Shape, _Seen]) -> Iterator[Finding]:
    orders: dict[tuple[Path, frozenset[str]], dict[tuple[str, ...], list[_Seen]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for shape, seen in shapes.items():
        for path, keys in shape.keys:
            orders[path, frozenset(keys)][keys].append(seen)
    for (path, _), several in orders.items():
        counted = {keys: _sum(held) for keys, held in several.items()}
        usual = max(counted, key=lambda keys: counted[keys].count)
        for keys, seen in counted.items():
            if keys != usual:
                within = f' in "{path}"' if path else ""
                message = f"the keys{within} stand in the order {_list(keys)}, elsewhere {_list(usual)}"
                yield from _odd(seen, message, "write one order throughout", counted[usual], keys[0])


def _list(keys: tuple[str, ...]) -> str:
    return ", ".join(f'"{key}"' for key in keys[:6]) + (", …" if len(keys) > 6 else "")


def _different_keys(shapes: dict[Shape, _Seen]) -> Iterator[Finding]:
    """A set of keys on one or two rows that a common set, nine times as frequent, would be but for one key."""
    sets: dict[_Keys, list[_Seen]] = defaultdict(list)
    drawn: dict[_Keys, Shape] = {}
    for shape, seen in shapes.items():
        for path, names in shape.keys:
            sets[path, frozenset(names)].append(seen)
            drawn.setdefault((path, frozenset(names)), shape)
    counted = {of: _sum(held) for of, held in sets.items()}
    near = Counter((path, keys - {key}) for path, keys in counted for key in keys)
    for (path, keys), seen in counted.items():
        if seen.count > 2 or not keys:
            continue
        common = [(other, c) for (at, other), c in counted.items() if at == path and c.count >= 9 * seen.count]
        for other, usual in sorted(common, key=lambda pair: -pair[1].count):
            missing, added = sorted(other - keys), sorted(keys - other)
            message = None
            if len(missing) == 1 and not added:
                message = f'the key "{missing[0]}" is missing, which {usual.count} other answers have'
            elif len(added) == 1 and not missing and near[path, other] == 1 and usual.count >= 19 * seen.count:
                message = f'the key "{added[0]}" is added, which {usual.count} other answers do without'
            elif len(added) == len(missing) == 1:
                rival = near[path, keys & other] > 2  # other keys stand there too: each answer has its own
                places = _place(path, added[0], drawn[path, keys]), _place(path, missing[0], drawn[path, other])
                if _is_slip(added[0], missing[0]) or (len(keys) > 2 and not rival and places[0] == places[1]):
                    message = f'the key "{added[0]}" stands where {usual.count} other answers have "{missing[0]}"'
            if message:
                quote = added[0] if added else min(keys)
                names = next(names for _, names in drawn[path, other].keys if other == frozenset(names))
                yield from _odd(seen, message, f"write the usual keys: {_list(names)}", usual, quote)
                break


def _place(path: Path, key: str, shape: Shape) -> tuple[int, frozenset[str]]:
    """Where a key stands in its object, and the kinds of its values."""
    names = next(names for at, names in shape.keys if at == path and key in names)
    full = f"{path}.{key}" if path else key
    return names.index(key), frozenset(kind for at, kind in shape.kinds if at == full)


def _is_slip(one: str, other: str) -> bool:
    """Do two names differ as a word and its misspelling do?"""
    if len(one) == len(other) >= 4 and sum(a != b for a, b in zip(one, other, strict=True)) == 1:
        return True
    return difflib.SequenceMatcher(None, one, other).ratio() >= 0.85
