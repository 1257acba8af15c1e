"""Is a finished answer what the schema asks for? Said by a library that had no part in writing it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs

from plume.errors import UserError
from plume.generation.constrain.places import places
from plume.generation.constrain.pointer import pointer


def judge(text: str) -> Callable[[str], bool]:
    """Whether a text is JSON, without a key twice in an object, that the schema allows, formats included. Raises
    UserError for what is no schema, or leads outside itself: nothing is fetched."""
    schema = json.loads(text)
    try:
        validator = jsonschema_rs.validator_for(schema, validate_formats=True, retriever=_nothing)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        reason = (getattr(error, "message", None) or str(error)).split("\n")[0]
        path = "".join(f"/{pointer(str(part))}" for part in getattr(error, "instance_path", ()))
        place = places(reason, schema) or (f" (at {path})" if path else "")
        raise UserError(f"the schema cannot be used: {reason}{place}", _advice(error, reason)) from None

    def valid(text: str) -> bool:
        try:
            return bool(validator.is_valid(parsed(text)))
        except (ValueError, RecursionError):
            return False

    return valid


def _advice(error: Exception, reason: str) -> str:
    if not isinstance(getattr(error, "kind", None), jsonschema_rs.ValidationErrorKind.Referencing):
        return "see json-schema.org for what this keyword may hold"
    if "meta-schema" in reason:
        return "let $schema name a draft of json-schema.org, or leave it out"
    return "every $ref must lead to a part of the schema itself"


def parsed(text: str) -> Any:
    """The value of a text of JSON. Raises ValueError where a key stands twice, or a number cannot be held."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)


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
