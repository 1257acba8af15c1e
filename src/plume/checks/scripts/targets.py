"""What labels are made of: the places that make them, and the ids behind them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from plume.checks.scripts.facts import Call, Facts
from plume.checks.scripts.subjects import encodings

_SAME_VALUES = (
    "copy", "clone", "deepcopy", "list", "tensor", "squeeze", "flatten", "long", "contiguous", "detach", "to", "tolist",
    "unsqueeze", "LongTensor", "stack", "array", "asarray", "cuda",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Labels:
    """A place that makes labels, and what it makes them of; `inputs` are the ids they stand beside."""

    node: ast.AST
    value: ast.expr
    inputs: ast.expr | None


def labels(facts: Facts) -> Iterator[Labels]:
    """Labels that are stored under the key `labels`, written in a mapping, or passed to a model."""
    for node in facts.nodes:
        match node:
            case ast.Assign(targets=[ast.Subscript(value=mapping, slice=ast.Constant(value="labels"))], value=value):
                yield Labels(node, value, mapping)
            case ast.Dict(keys=keys, values=values):
                entries = {
                    key.value: item for key, item in zip(keys, values, strict=True) if isinstance(key, ast.Constant)
                }
                if "labels" in entries:
                    yield Labels(node, entries["labels"], entries.get("input_ids"))
            case ast.Call() if "labels" in (call := facts.call_of[node]).keywords:
                given = next((keyword for keyword in node.keywords if keyword.arg == "labels"), None)
                if given is not None and call.last not in ("DataCollatorForSeq2Seq", "Dataset"):
                    yield Labels(node, given.value, call.argument("input_ids", 0))


def ids_source(facts: Facts, node: ast.expr | None) -> Call | None:
    """The tokenizer call whose ids these are, unchanged but for copying; None for anything computed."""
    for _ in range(10):
        if node is None:
            return None
        node = facts.follow(node)
        match node:
            case ast.Subscript(value=value, slice=ast.Constant(value="input_ids" | 0)):
                node = value
            case ast.Attribute(value=value, attr="input_ids"):
                node = value
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if node not in encodings(facts):
                if name in ("tensor", "LongTensor", "deepcopy", "stack", "array", "asarray"):
                    node = node.args[0] if node.args else None
                elif name in _SAME_VALUES:
                    node = value
                else:
                    return None
            case ast.Call(func=ast.Name(id="list" | "deepcopy" | "copy"), args=[first, *_]):
                node = first
            case ast.Call():
                return facts.call_of.get(node) if node in encodings(facts) else None
            case _:
                return None
    return None


def masks(facts: Facts) -> list[ast.AST]:
    """Every place that writes the ignored label: -100, or a loss with its own ignored index."""
    found: list[ast.AST] = []
    for node in facts.nodes:
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=100)):
                found.append(node)
            case ast.keyword(arg="ignore_index" | "label_pad_token_id"):
                found.append(node.value)
    return found


def collators(facts: Facts) -> list[Call]:
    """transformers' own language-model collator without masked-word training: it makes the labels itself."""
    return [
        call
        for call in facts.named("DataCollatorForLanguageModeling")
        if not call.name.startswith("trl") and facts.constant(call.argument("mlm", 1)) is False
    ]


def other_text(facts: Facts, place: Labels) -> tuple[Call, Call] | None:
    """The tokenizer calls behind labels and inputs, when they are two calls on texts that share nothing."""
    of_labels, of_inputs = ids_source(facts, place.value), ids_source(facts, place.inputs)
    if of_labels is None or of_inputs is None or of_labels.node is of_inputs.node:
        return None
    first, second = of_labels.argument("text", 0), of_inputs.argument("text", 0)
    if first is None:
        first = of_labels.keywords.get("text_target")
    if first is None or second is None:
        return None
    return (of_labels, of_inputs) if _leaves(facts, first).isdisjoint(_leaves(facts, second)) else None


def _leaves(facts: Facts, node: ast.expr, depth: int = 6) -> set[str]:
    """The columns and variables that a text is made of."""
    node = facts.follow(node)
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Subscript) and isinstance(inner.slice, ast.Constant):
            found.add(str(inner.slice.value))
        elif isinstance(inner, ast.Attribute) and inner.attr not in ("eos_token", "bos_token"):
            found.add(inner.attr)
        elif isinstance(inner, ast.Name) and depth > 0:
            given = facts.follow(inner)
            if given is not inner:
                found |= _leaves(facts, given, depth - 1)
            elif not isinstance(facts.parents.get(inner), ast.Subscript | ast.Attribute | ast.Call):
                found.add(inner.id)
    return found


def copies_inputs(facts: Facts, value: ast.expr) -> bool:
    if ids_source(facts, value) is not None:
        return True
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        if value.func.attr not in ("copy", "clone", "detach", "to", "long"):
            return False
        value = value.func.value
    match facts.follow(value):
        case ast.Subscript(slice=ast.Constant(value="input_ids")) | ast.Attribute(attr="input_ids"):
            return True
        case ast.Name(id="input_ids" | "ids" | "inputs"):
            return True
        case ast.Call(func=ast.Attribute(value=inner, attr="to")):
            return copies_inputs(facts, inner)
    return False
