"""D716: what a conversation carries from turn to turn."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from plume.checks.scripts.facts import Facts
from plume.checks.scripts.rules import Found, rule
from plume.checks.scripts.subjects import function_around, generations

_HISTORY = re.compile(r"hist|context|convers|message|memo|prompt|dialog|chat|turns|tours|echange", re.IGNORECASE)


@rule("D716", "warning", whole=True)
def context_without_bound(facts: Facts) -> Iterator[Found]:
    asked = _asked_names(facts)
    said: set[str] = set()
    for node in facts.nodes:
        name = _grown(facts, node)
        if name is None or name in said or name not in asked or _is_bounded(facts, name):
            continue
        said.add(name)
        yield Found(
            node,
            f"`{name}` grows with every turn and nothing shortens it: beyond the model's window answers break or stop",
            "keep only the last turns that fit the window, and start each conversation with its own list",
            quote=name,
        )


def _grown(facts: Facts, node: ast.AST) -> str | None:
    """The name that a statement makes longer on each pass of an endless loop or each call of a function."""
    match node:
        case ast.AugAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), op=ast.Add()):
            pass
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr="append" | "extend")):
            pass
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.BinOp(left=left, op=ast.Add())) if any(
            isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(left)
        ):
            pass
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as value) if _concatenated(facts, name, value):
            pass
        case _:
            return None
    if not _HISTORY.search(name):
        return None
    endless = any(isinstance(above, ast.While) for above in facts.above(node))
    return name if endless or _outlives(facts, node, name) else None


def _concatenated(facts: Facts, name: str, value: ast.Call) -> bool:
    """DialoGPT's way: the answer, with everything before it, becomes the next history."""
    if not isinstance(value.func, ast.Attribute) or value.func.attr != "generate" or not value.args:
        return False
    given = ast.walk(facts.follow(value.args[0]))
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in given)


def _outlives(facts: Facts, node: ast.AST, name: str) -> bool:
    """Does a function change something that lives longer than its call?"""
    function = function_around(facts, node)
    if function is None:
        return False
    local = facts.bindings.get(function, {})
    own = name in local or name in [argument.arg for argument in function.args.args]
    on_self = any(f"self.{name}" in names for names in facts.bindings.values())
    return on_self or (not own and name in facts.bindings.get(facts.tree, {}))


def _asked_names(facts: Facts) -> set[str]:
    """Names that what the model is asked is made of."""
    found: set[str] = set()
    waiting: list[ast.AST] = []
    for call in facts.calls:
        if call.last in ("generate", "apply_chat_template") or call.name.endswith("completions.create"):
            waiting += [*call.node.args, *(keyword.value for keyword in call.node.keywords)]
    waiting += [argument for call in generations(facts) for argument in call.node.args]
    seen: set[ast.AST] = set()
    while waiting:
        for inner in ast.walk(waiting.pop()):
            if inner in seen:
                continue
            seen.add(inner)
            if isinstance(inner, ast.Name | ast.Attribute):
                found.add(inner.id if isinstance(inner, ast.Name) else inner.attr)
                given = facts.follow(inner)
                if given is not inner:
                    waiting.append(given)
    return found


def _is_bounded(facts: Facts, name: str) -> bool:
    """Is the name ever cut, emptied, measured or given a limited length?"""
    for node in facts.nodes:
        match node:
            case ast.Subscript(value=value, slice=ast.Slice()) if _is_name(value, name):
                return True
            case ast.Call(func=ast.Attribute(value=value, attr="pop" | "popleft" | "clear")) if _is_name(value, name):
                return True
            case ast.Call(func=ast.Name(id="len"), args=[value]) if _is_name(value, name):
                return True
            case ast.Delete(targets=[ast.Subscript(value=value)]) if _is_name(value, name):
                return True
            case ast.Call() if "maxlen" in facts.call_of[node].keywords:
                return True
            case ast.Call() if facts.constant(facts.call_of[node].keywords.get("truncation")) is True:
                return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))
    return False


def _is_name(node: ast.expr, name: str) -> bool:
    return name in (getattr(node, "id", None), getattr(node, "attr", None))
