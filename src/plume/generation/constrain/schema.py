"""Which schemas can be enforced: whatever a schema says is enforced, or refused by name and place, or a note.

Notes are what JSON Schema itself gives no meaning: titles, examples, unknown keywords, formats of one's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plume.errors import UserError
from plume.generation.constrain import logic, rewrite
from plume.generation.constrain.definitions import CONTAINERS, unused
from plume.generation.constrain.endless import refuse_endless
from plume.generation.constrain.pointer import pointer, shortened, target

LARGEST = 2**20  # characters of a schema
_HEAVIEST = 100_000  # schemas that one value is held against
_ENDLESS = float("inf")
_DEEPEST = 100  # schemas within schemas
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_WORDS = """
    $anchor $id $ref $schema const enum id maxItems maxLength maxProperties minItems minLength minProperties multipleOf
    required type
"""
_KEPT = frozenset(_WORDS.split())
_UNENFORCED = """
    $dynamicAnchor $dynamicRef $recursiveAnchor $recursiveRef contains else if maxContains minContains not propertyNames
    then unevaluatedItems unevaluatedProperties uniqueItems
"""
_REFUSED = frozenset(_UNENFORCED.split())
_NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "$recursiveAnchor": (False,),
    "propertyNames": (True, {}),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "uniqueItems": (False,),
}
_SAID = ("dependencies", "dependentRequired", "dependentSchemas", "not", "oneOf")  # by others
_ONE = ("additionalItems", "additionalProperties", "items")
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_TOGETHER = ("allOf", "anyOf", "oneOf")
_NAMED = ("properties", "patternProperties", *CONTAINERS)
ENFORCED = frozenset(
    [*_KEPT - {"$anchor", "$id", "$schema", "id"}, *_BOUNDS, *_ONE, *_MANY, "format", "pattern", *_NAMED[:2]]
)
FORMATS = frozenset([*rewrite.KEPT, *rewrite.PATTERNS])
_ALONE = ("draft-03", "draft-04", "draft-06", "draft-07")  # where what stands beside $ref has no meaning


@dataclass
class Prepared:
    """What llguidance is given of the `whole`, without the definitions that are `unused`; `apart` as `rewrite.bounds`
    takes it; `notes` are the formats that the schema names and nobody knows, with their place."""

    schema: Any
    whole: Any
    apart: bool = False
    unused: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


def written(schema: Mapping[str, Any] | bool) -> str:
    """A schema as text. Raises UserError for one that is no JSON, or too long."""
    text = ""
    try:
        for piece in json.JSONEncoder(ensure_ascii=False, allow_nan=False).iterencode(schema):
            text += piece
            if len(text) > LARGEST:
                raise UserError(f"the schema has more than {LARGEST} characters", "give a part of it")
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the schema is not JSON: {error}", "give an object as json-schema.org describes it") from None
    return text


def prepare(text: str) -> Prepared:
    """What is to be enforced of a schema and nothing else. Raises UserError for what cannot be."""
    whole = json.loads(text)
    draft = str(whole.get("$schema", "")) if isinstance(whole, dict) else ""
    prepared = Prepared(None, whole, rewrite.apart(whole), unused(whole))
    prepared.schema = _prepared(whole, "", prepared, any(name in draft for name in _ALONE))
    _weigh(prepared.schema, prepared.schema, "", {})
    refuse_endless(prepared.schema)
    return prepared


def _weigh(schema: Any, whole: Any, path: str, known: dict[str, float]) -> float:
    """How many schemas one value is held against, this one and all below it. Raises UserError for a $ref that leads
    back to itself, and for alternatives that multiply beyond what any validator can go through."""
    if not isinstance(schema, dict):
        return 1
    weight = 1.0
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith("#"):
        if known.get(ref) == _ENDLESS:
            raise UserError(
                f"$ref {ref} at {path}/$ref leads back to itself", "let it pass through a property or an item"
            )
        if ref not in known:
            known[ref] = _ENDLESS
            place, led = target(whole, ref) or ("", None)
            known[ref] = _weigh(led, whole, place, known)
        weight += known[ref]
    for key in _TOGETHER:
        parts = schema.get(key, ())
        weight += sum(_weigh(part, whole, f"{path}/{key}/{n}", known) for n, part in enumerate(parts))
    if weight > _HEAVIEST:
        raise UserError(f"the schema at {path or '/'} multiplies into {weight:.0f} schemas", "name fewer alternatives")
    return weight


def _prepared(schema: Any, path: str, prepared: Prepared, alone: bool) -> Any:
    if isinstance(schema, bool):
        return schema
    if path.count("/") > 2 * _DEEPEST:
        raise UserError(
            f"the schema is over {_DEEPEST} levels deep at {shortened(path)}", "give inner schemas a name in $defs"
        )
    if not isinstance(schema, dict):
        raise UserError(f"the schema at {path or '/'} is neither an object nor true or false")
    kept: dict[str, Any] = {}
    also = []
    for key, value in schema.items():
        here = f"{path}/{pointer(key)}"
        if alone and "$ref" in schema and key not in ("$ref", "$schema", "$id", "id", "$defs", "definitions"):
            continue
        said = _said(key, value, prepared.whole) if key in _SAID else None
        if said is not None:
            also += [_prepared(part, here, prepared, alone) for part in said]
        elif key in _REFUSED:
            if value not in _NO_EFFECT.get(key, ()):
                raise _unsupported(key, here)
        elif key == "format":
            also += _format(value, here, prepared)
        elif key == "pattern":
            kept[key] = _pattern(value, here)
        elif key in _MANY or (key in _ONE and isinstance(value, list)):
            kept[key] = [_prepared(part, f"{here}/{n}", prepared, alone) for n, part in enumerate(value)]
        elif key in _NAMED:
            kept[key] = {
                _pattern(name, here) if key == "patternProperties" else name: _prepared(
                    part, f"{here}/{pointer(name)}", prepared, alone
                )
                for name, part in value.items()
                if f"{here}/{pointer(name)}" not in prepared.unused
            }
        elif key in _ONE:
            kept[key] = _prepared(value, here, prepared, alone)
        elif key in _KEPT:
            kept[key] = value
    if not (alone and "$ref" in schema):
        kept |= _bounds(schema, path, prepared.apart)
    return _in_order(_with_all(kept, also))


def _bounds(schema: Mapping[str, Any], path: str, apart: bool) -> dict[str, Any]:
    try:
        return rewrite.bounds({key: schema[key] for key in _BOUNDS if key in schema}, apart)
    except ValueError as error:
        named = next(key for key in _BOUNDS if key in schema)
        raise UserError(f"{named} at {path}/{named} cannot be enforced: {error}", "use smaller bounds") from None


def _with_all(kept: dict[str, Any], also: list[Any]) -> dict[str, Any]:
    """The schema that says these as well."""
    return kept | {"allOf": [*kept.get("allOf", []), *also]} if also else kept


def _in_order(kept: dict[str, Any]) -> dict[str, Any]:
    """The schema, whose parts let keys come in the order of its own properties."""
    if "properties" not in kept:
        return kept
    return kept | {key: [_ordered(part, kept["properties"]) for part in kept[key]] for key in _TOGETHER if key in kept}


def _ordered(part: Any, first: Mapping[str, Any]) -> Any:
    """A part of a schema with properties of its own, with those of the schema before them: keys come in their order.
    What it says of a key that it does not name is said of these by name."""
    if not isinstance(part, dict):
        return part
    part = part | {key: [_ordered(inner, first) for inner in part[key]] for key in _TOGETHER if key in part}
    if "properties" not in part or "patternProperties" in part:
        return part
    others = part.get("additionalProperties", True)
    return part | {"properties": {**dict.fromkeys(first, others), **part["properties"]}}


def _said(key: str, value: Any, whole: Any) -> list[Any] | None:
    """Schemas that together say what a keyword says that llguidance does not know, or does not know well enough; None
    where that is not known either."""
    try:
        if key == "not":
            return [logic.negated(value)]
        if key == "oneOf":
            return [{"anyOf": logic.exclusive(value, whole)}]
        return logic.depending(value)
    except ValueError:
        return None


def _format(value: Any, path: str, prepared: Prepared) -> list[dict[str, Any]]:
    if value in rewrite.KEPT:
        return [{"format": value}]
    if value in rewrite.PATTERNS:
        return [{"pattern": f"^(?:{rewrite.PATTERNS[value]})$"}]
    if value in rewrite.UNWRITABLE:
        known = ", ".join(sorted([*rewrite.KEPT, *rewrite.PATTERNS]))
        raise UserError(f"format {value!r} at {path} cannot be enforced", f"leave it out, or use one of {known}")
    prepared.notes.append(f"format {value!r} at {path} has no meaning in JSON Schema")
    return []


def _pattern(value: str, path: str) -> str:
    try:
        return rewrite.pattern(value)
    except ValueError as error:
        raise UserError(f"the pattern {value!r} at {path} cannot be enforced: {error}", "write it otherwise") from None


def _unsupported(key: str, path: str) -> UserError:
    return UserError(f"{key} at {path} cannot be enforced", "leave it out, or say the same with other keywords")
