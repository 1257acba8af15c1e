"""Which schemas can be enforced, and the independent judge of what was written.

Whatever a schema says is enforced or refused by name and place; nothing is dropped and nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs

from plume.errors import UserError

LARGEST = 2**20  # bytes of a schema
_DEEPEST = 100  # schemas within schemas
ENFORCED = """
    $ref additionalItems additionalProperties allOf anyOf const enum exclusiveMaximum exclusiveMinimum format items
    maxItems maxLength maxProperties maximum minItems minLength minProperties minimum multipleOf oneOf pattern
    patternProperties prefixItems properties required type
""".split()  # noqa: SIM905 - a list of words
_KEPT = frozenset([*ENFORCED, "$id", "$anchor", "$schema", "id"])
_REFUSED = """
    $dynamicAnchor $dynamicRef $recursiveAnchor $recursiveRef contains dependencies dependentRequired dependentSchemas
    else if maxContains minContains not propertyNames then unevaluatedItems unevaluatedProperties uniqueItems
""".split()  # noqa: SIM905
_NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "$recursiveAnchor": (False,),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
}
_ONE = ("additionalItems", "additionalProperties", "items")
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
FORMATS = ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")


def prepare(schema: Mapping[str, Any] | bool) -> Any:
    """A copy of a schema with what llguidance is to enforce and nothing else. Raises UserError for what it cannot."""
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the schema is not JSON: {error}", "give an object as in json-schema.org") from None
    if len(text) > LARGEST:
        raise UserError(f"the schema has {len(text)} bytes, more than {LARGEST}", "split it, or give a part of it")
    return _prepared(json.loads(text), "", 0)


def _prepared(schema: Any, path: str, depth: int) -> Any:
    if isinstance(schema, bool):
        return schema
    if depth > _DEEPEST:
        raise UserError(
            f"the schema is more than {_DEEPEST} levels deep at {path}", "give inner schemas a name in $defs"
        )
    if not isinstance(schema, dict):
        raise UserError(f"the schema at {path or '/'} is neither an object nor true or false")
    kept = {}
    for key, value in schema.items():
        here = f"{path}/{_pointer(key)}"
        if key in _REFUSED:
            if value not in _NO_EFFECT.get(key, ()):
                raise _unsupported(key, here)
        elif key == "format":
            if value not in FORMATS:
                raise UserError(
                    f"format {value!r} at {here} cannot be enforced",
                    f"leave it out, or use one of {', '.join(FORMATS)}",
                )

            kept[key] = value
        elif key in _MANY or (key in _ONE and isinstance(value, list)):
            kept[key] = [_prepared(part, f"{here}/{number}", depth + 1) for number, part in enumerate(value)]
        elif key in _NAMED:
            kept[key] = {name: _prepared(part, f"{here}/{_pointer(name)}", depth + 1) for name, part in value.items()}
        elif key in _ONE:
            kept[key] = _prepared(value, here, depth + 1)
        elif key in _KEPT:
            kept[key] = value
    return kept


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unsupported(key: str, path: str) -> UserError:
    return UserError(f"{key} at {path} cannot be enforced", "leave it out, or say the same with other keywords")


def judge(schema: Mapping[str, Any] | bool) -> Callable[[str], bool]:
    """Whether a text is JSON that the schema allows, by another library. Raises UserError for what is no schema."""
    try:
        whole = dict(schema) if isinstance(schema, Mapping) else schema
        validator = jsonschema_rs.validator_for(whole, validate_formats=True, retriever=_nothing)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise UserError(
            f"the schema cannot be used: {error}", "every $ref must lead to a part of the schema itself"
        ) from None

    def valid(text: str) -> bool:
        try:
            value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
            return bool(validator.is_valid(value))
        except (ValueError, RecursionError):
            return False

    return valid


def _nothing(uri: str) -> Any:
    raise ValueError(f"{uri} lies outside the schema, and nothing is fetched")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large to read")
    return value
