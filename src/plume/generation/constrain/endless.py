"""Schemas that only endless documents would satisfy: what they require always requires more of the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plume.errors import UserError
from plume.generation.constrain.pointer import found, pointer


def refuse_endless(whole: Any) -> None:
    """Raises UserError where no finite document is allowed. The references that can come to an end are a least fixed
    point: at first none can. What is not understood is taken to end."""
    ends = dict.fromkeys((ref for ref, _ in _references(whole, "")), False)
    changed = True
    while changed:
        changed = False
        for ref, known in ends.items():
            if not known and _ends(found(whole, ref), ends):
                ends[ref] = changed = True
    if not _ends(whole, ends):
        where = next((f"$ref {ref} at {path}" for ref, path in _references(whole, "") if not ends[ref]), "")
        if where:
            raise UserError(
                f"{where} never comes to an end: every answer would be endless", "require less, or allow null"
            )


def _references(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    parts = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, part in parts:
        here = f"{path}/{pointer(str(key))}"
        if key == "$ref" and isinstance(schema, dict) and isinstance(part, str) and part.startswith("#"):
            yield part, here
        yield from _references(part, here)


def _ends(schema: Any, ends: dict[str, bool]) -> bool:
    if not isinstance(schema, dict):
        return schema is not False
    if not ends.get(schema.get("$ref", ""), True):
        return False
    if not all(_ends(part, ends) for part in schema.get("allOf", ())):
        return False
    for key in ("anyOf", "oneOf"):
        if key in schema and not any(_ends(part, ends) for part in schema[key]):
            return False
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and len(kind) == 1 else kind
    if kind == "object" and not any(_ends(part, ends) for part in _members(schema)):
        return False
    return all(_ends(part, ends) for part in _required(schema, kind))


def _members(schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas of all that may stand in an object, nothing among them where it may be empty."""
    yield from schema.get("properties", {}).values()
    yield from schema.get("patternProperties", {}).values()
    yield schema.get("additionalProperties", True) if schema.get("minProperties", 0) else True


def _required(schema: dict[str, Any], kind: Any) -> Iterator[Any]:
    """The schemas of all that must stand in a value of this one."""
    if kind == "object":
        properties = schema.get("properties", {})
        others = True if "patternProperties" in schema else schema.get("additionalProperties", True)
        yield from (properties.get(name, others) for name in schema.get("required", ()))
    if kind == "array":
        least, items = schema.get("minItems", 0), schema.get("items", True)
        first = schema.get("prefixItems", items if isinstance(items, list) else [])
        yield from first[:least]
        rest = schema.get("additionalItems", True) if isinstance(items, list) else items
        if least > len(first):
            yield rest
