"""Texts that a script builds, as patterns: f-strings, `format`, `%`, `+` and `join`, with holes for what is unknown."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from plume.checks.scripts.facts import Call, Facts
from plume.checks.scripts.subjects import encodings, generates, generations, is_pipeline

_DEPTH = 10
_END_TOKENS = ("eos_token", "bos_token", "EOS", "EOS_TOKEN", "eos", "BOS_TOKEN")
_FIELD = re.compile(r"\{(\w*)[^{}]*\}")
_MARK = re.compile(r"[:#|>\]\n]")
_STRIPS = ("strip", "rstrip", "lstrip", "removesuffix", "lower", "replace")


@dataclass(frozen=True, slots=True)
class Hole:
    """A part of a text that the script does not show; `name` is the column or variable, `typed` what a person types."""

    name: str
    typed: bool = False


Text = tuple[str | Hole, ...]


def text_of(facts: Facts, node: ast.expr, depth: int = _DEPTH) -> Text:
    """What the expression writes, neighbouring literals joined."""
    return _joined(_parts(facts, node, depth))


def _joined(parts: Iterator[str | Hole]) -> Text:
    found: list[str | Hole] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return tuple(found)


def _parts(facts: Facts, node: ast.expr, depth: int) -> Iterator[str | Hole]:
    if depth <= 0:
        yield Hole("?")
        return
    depth -= 1
    match node:
        case ast.Constant(value=value):
            yield str(value)
        case ast.JoinedStr(values=values):
            for value in values:
                yield from _parts(facts, value, depth)
        case ast.FormattedValue(value=value):
            yield from _parts(facts, value, depth)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from _parts(facts, left, depth)
            yield from _parts(facts, right, depth)
        case ast.BinOp(left=left, op=ast.Mod(), right=right):
            given = right.elts if isinstance(right, ast.Tuple) else [right]
            yield from _filled(facts, left, given, {}, r"%[sdr]", depth)
        case ast.Call(func=ast.Attribute(value=pattern, attr="format"), args=args, keywords=keywords):
            named = {keyword.arg: keyword.value for keyword in keywords if keyword.arg}
            yield from _filled(facts, pattern, args, named, _FIELD.pattern, depth)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(glue)), attr="join"), args=[pieces]):
            yield from _list(facts, pieces, glue, depth)
        case ast.Call(func=ast.Attribute(value=inner, attr=name)) if name in _STRIPS:
            yield from _parts(facts, inner, depth)
        case ast.Call(func=ast.Name(id="input")):
            yield Hole("input", typed=True)
        case ast.List(elts=[first, *_]) | ast.ListComp(elt=first):
            yield from _parts(facts, first, depth)
        case ast.Attribute(attr=name) if name in _END_TOKENS:
            yield Hole(name)
        case ast.Subscript(slice=ast.Constant(value=str(column))):
            yield Hole(column)
        case _:
            yield from _named(facts, node, depth)


def _named(facts: Facts, node: ast.expr, depth: int) -> Iterator[str | Hole]:
    given = facts.follow(node)
    if given is not node:
        yield from _parts(facts, given, depth)
        return
    binding = facts.binding(node.id, node) if isinstance(node, ast.Name) else None
    over = facts.follow(binding.over) if binding is not None and binding.over is not None else None
    if isinstance(over, ast.List) and over.elts and isinstance(over.elts[0], ast.Constant):
        yield from _parts(facts, over.elts[0], depth)
    else:
        yield Hole(node.id if isinstance(node, ast.Name) else "?")


def _list(facts: Facts, pieces: ast.expr, glue: str, depth: int) -> Iterator[str | Hole]:
    written = facts.follow(pieces)
    if not isinstance(written, ast.List):
        yield Hole("?")
        return
    for place, piece in enumerate(written.elts):
        yield glue if place else ""
        yield from _parts(facts, piece, depth)


def _filled(
    facts: Facts, pattern: ast.expr, given: list[ast.expr], named: dict[str, ast.expr], field: str, depth: int
) -> Iterator[str | Hole]:
    """A pattern with its fields filled in: by place, or by name."""
    text = facts.constant(pattern)
    if not isinstance(text, str):
        yield Hole("?")
        return
    last = 0
    for place, match in enumerate(re.finditer(field, text)):
        yield text[last : match.start()]
        last = match.end()
        name = match.group(1) if match.lastindex else ""
        if name in named:
            yield from _parts(facts, named[name], depth)
        elif not name and place < len(given):
            yield from _parts(facts, given[place], depth)
        else:
            yield Hole(name or "?")
    yield text[last:]


def holes(text: Text) -> list[Hole]:
    return [part for part in text if isinstance(part, Hole) and part.name not in _END_TOKENS]


def literal(text: Text) -> str:
    return "".join(part for part in text if isinstance(part, str))


@lru_cache(maxsize=2)
def trained_texts(facts: Facts) -> tuple[tuple[ast.AST, Text], ...]:
    """Rows as the script writes them for training: at least two holes with a marker between them."""
    found: list[tuple[ast.AST, Text]] = []
    for node in facts.nodes:
        if not isinstance(node, ast.JoinedStr | ast.BinOp | ast.Call) or not _is_row(facts, node):
            continue
        text = text_of(facts, node)
        inner = [place for place, part in enumerate(text) if part in holes(text)]
        between = text[inner[0] + 1 : inner[-1]] if len(inner) > 1 else ()
        if _MARK.search(literal(between)):
            found.append((node, text))
    return tuple(found)


def _is_row(facts: Facts, node: ast.AST) -> bool:
    """Does the text become a row: stored, returned, gathered in a list, or tokenised where nothing is generated?"""
    parent = facts.parents[node]
    while isinstance(parent, ast.BinOp | ast.JoinedStr | ast.FormattedValue | ast.IfExp):
        return False
    if generates(facts, facts.scope_of(node)) and not isinstance(facts.scope_of(node), ast.Module):
        return False
    if _printed(facts, node):
        return False
    match parent:
        case ast.Dict() | ast.Return() | ast.List() | ast.Tuple() | ast.ListComp() | ast.Lambda() | ast.Yield():
            return True
        case ast.Call(func=ast.Attribute(attr="append")):
            return True
        case ast.Call():
            return parent in encodings(facts) and not _is_asked(facts, parent)
        case ast.Assign(targets=[ast.Name(id=name)]):
            return _kept(facts, name, facts.scope_of(node))
        case ast.Assign(targets=[ast.Subscript()]):
            return True
    return False


def _printed(facts: Facts, node: ast.AST) -> bool:
    return any(
        isinstance(above, ast.Call) and facts.call_of[above].last in ("print", "info", "write", "debug", "format")
        for above in facts.above(node)
    )


def _kept(facts: Facts, name: str, scope: ast.AST) -> bool:
    """Is a text that first gets a name later stored, returned, gathered or tokenised in the same function?"""
    for node in facts.uses.get((scope, name), []):
        match facts.parents[node]:
            case ast.Return() | ast.Dict() | ast.ListComp() | ast.Yield():
                return True
            case ast.Call(func=ast.Attribute(attr="append")):
                return True
            case ast.Call() as parent:
                if parent in encodings(facts) and not _is_asked(facts, parent):
                    return True
    return False


def _is_asked(facts: Facts, call: ast.Call) -> bool:
    return call in _encodings_asked(facts)


@lru_cache(maxsize=2)
def _encodings_asked(facts: Facts) -> dict[ast.Call, None]:
    """Tokenizer calls whose ids are given to `generate`, in reading order."""
    found: dict[ast.Call, None] = {}
    for call in generations(facts):
        given = [*call.node.args[:1], *(keyword.value for keyword in call.node.keywords if keyword.arg is None)]
        given += [call.keywords[name] for name in ("input_ids", "inputs") if name in call.keywords]
        for node in given:
            made = _encoding(facts, node)
            if made is not None:
                found[made] = None
                break
    return found


def _encoding(facts: Facts, node: ast.expr) -> ast.Call | None:
    for _ in range(10):
        node = facts.follow(node)
        if isinstance(node, ast.Call) and (
            node in encodings(facts) or facts.call_of[node].last == "apply_chat_template"
        ):
            return node
        match node:
            case ast.Call(func=ast.Attribute(value=inner)) | ast.Subscript(value=inner) | ast.Attribute(value=inner):
                node = inner
            case _:
                return None
    return None


def _name(facts: Facts, node: ast.expr) -> str:
    return facts.call_of[node].last if node in facts.call_of else ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text that a model is asked with; `chat` is the call of the chat template, if that makes it."""

    node: ast.AST
    text: Text
    chat: Call | None


@lru_cache(maxsize=2)
def prompts(facts: Facts) -> tuple[Prompt, ...]:
    """What is given to `generate` or to a pipeline, a prompt for each place where a helper is called."""
    return tuple(_prompts(facts))


def _prompts(facts: Facts) -> Iterator[Prompt]:
    for made in _encodings_asked(facts):
        call = facts.call_of[made]
        given = call.argument("text", 0)
        if call.last == "apply_chat_template":
            yield Prompt(made, (), call)
        elif given is not None:
            yield from _asked(facts, given)
    for call in generations(facts):
        if is_pipeline(facts, call.node.func) and call.node.args:
            yield from _asked(facts, call.node.args[0])


def _asked(facts: Facts, given: ast.expr) -> Iterator[Prompt]:
    made = facts.follow(given)
    if isinstance(made, ast.Call) and facts.call_of[made].last == "apply_chat_template":
        yield Prompt(made, (), facts.call_of[made])
        return
    text = text_of(facts, given)
    function = next((above for above in facts.above(given) if isinstance(above, ast.FunctionDef)), None)
    names = [argument.arg for argument in function.args.args] if function else []
    match text:
        case (Hole(name=name),) if function and name in names:
            for site in facts.sites(function):
                if names.index(name) < len(site.args):
                    yield from _asked(facts, site.args[names.index(name)])
        case _:
            yield Prompt(given, text, None)
