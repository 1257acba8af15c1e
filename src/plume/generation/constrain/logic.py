"""`not`, `oneOf` and dependencies said with `anyOf`, where that means exactly the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plume.generation.constrain.pointer import found

_TYPES = frozenset(("array", "boolean", "null", "number", "object", "string"))
_SILENT = frozenset(("$comment", "comment", "default", "description", "examples", "title"))
_DEEPEST = 5  # references and properties that are followed to tell two schemas apart


def negated(schema: Any) -> Any:
    """A schema of all values that this one forbids. Raises ValueError where that cannot be said."""
    if isinstance(schema, bool):
        return not schema
    if not isinstance(schema, dict):
        raise ValueError("no schema")
    found: list[Any] = []
    for key, value in schema.items():
        if key == "type":
            types = [value] if isinstance(value, str) else value
            if "integer" in types and "number" not in types:
                raise ValueError("type integer")
            found += [{"type": sorted(_TYPES - set(types))}] if _TYPES - set(types) else []
        elif key == "required":
            found += [_without(name) for name in value]
        elif key == "properties":
            found += [
                {"type": "object", "required": [name], "properties": {name: negated(part)}}
                for name, part in value.items()
                if part is not True and part != {}
            ]
        elif key == "not":
            found.append(value)
        elif key == "anyOf":
            found.append({"allOf": [negated(part) for part in value]})
        elif key == "allOf":
            found += [negated(part) for part in value]
        elif key not in _SILENT:
            raise ValueError(key)
    return {"anyOf": found} if len(found) > 1 else found[0] if found else False


def depending(needs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Schemas that must all hold for `dependencies`, `dependentRequired` or `dependentSchemas`."""
    return [
        {"anyOf": [{"properties": {name: False}}, {"required": need} if isinstance(need, list) else need]}
        for name, need in needs.items()
        if need not in ([], {}, True)
    ]


def exclusive(parts: Sequence[Any], whole: Any) -> list[Any]:
    """The parts of a `oneOf` so that any may hold: each without the others, if it is not plain that they exclude each
    other. Raises ValueError where that cannot be said."""
    said = []
    for at, part in enumerate(parts):
        others = [other for number, other in enumerate(parts) if number != at]
        forbidden = [negated(other) for other in others if not disjoint(part, other, whole)]
        said.append({"allOf": [part, *forbidden]} if forbidden else part)
    return said


def disjoint(one: Any, other: Any, whole: Any, depth: int = 0) -> bool:
    """Is it plain that no value satisfies both? By their types, their values, or those of a property that both need."""
    one, other = _resolved(one, whole), _resolved(other, whole)
    if depth > _DEEPEST or not isinstance(one, dict) or not isinstance(other, dict) or "$ref" in {*one, *other}:
        return False
    mine, yours = _types(one), _types(other)
    if not mine & yours:
        return True
    if ("enum" in one and "enum" in other) or ("const" in one and "const" in other):
        values = [part.get("enum", [part.get("const")]) for part in (one, other)]
        if all(isinstance(value, str) for part in values for value in part):
            return not set(values[0]) & set(values[1])
    if mine & yours != {"object"}:
        return False
    both = set(one.get("required", ())) & set(other.get("required", ()))
    return any(
        disjoint(one.get("properties", {}).get(name), other.get("properties", {}).get(name), whole, depth + 1)
        for name in both
    )


def _without(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: False}}


def _resolved(schema: Any, whole: Any) -> Any:
    """What a schema that is a reference and nothing else leads to."""
    for _ in range(_DEEPEST):
        if not (isinstance(schema, dict) and schema.keys() - _SILENT == {"$ref"} and schema["$ref"].startswith("#/")):
            break
        schema = found(whole, schema["$ref"])
    return schema


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    types = schema.get("type", list(_TYPES))
    return frozenset("number" if name == "integer" else name for name in ([types] if isinstance(types, str) else types))
