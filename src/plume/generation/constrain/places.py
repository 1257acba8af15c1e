"""Where in a schema stands what other libraries complain of: JSON pointers for their messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from plume.generation.constrain.pointer import pointer

_KEYWORDS = ("oneOf", "minProperties", "maxProperties", "patternProperties", "multipleOf", "pattern", "enum")
_MOST = 3  # places named


def places(text: str, schema: Any) -> str:
    """The keywords that a message names, and the references that it quotes, each with its place."""
    text = text.replace("min/maxProperties", "minProperties, maxProperties")
    found = [
        f"{key} at {path}"
        for key, value, path in _keywords(schema, "")
        if (_quoted(value, text) if key == "$ref" else key in _KEYWORDS and re.search(rf"\b{re.escape(key)}\b", text))
    ]
    return f" ({', '.join(found[:_MOST])}{', …' if len(found) > _MOST else ''})" if found else ""


def unreadable(schema: Any, readable: Callable[[str], bool]) -> str:
    """The place of the first pattern that cannot be read, nothing where there is none."""
    for key, value, path in _keywords(schema, ""):
        patterns = {"pattern": [value], "patternProperties": value}.get(key, ())
        if any(isinstance(pattern, str) and not readable(pattern) for pattern in patterns):
            return f" ({key} at {path})"
    return ""


def _quoted(ref: Any, text: str) -> bool:
    return isinstance(ref, str) and bool(ref.strip("#")) and ref.removeprefix("#") in text


def _keywords(schema: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    if isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from _keywords(part, f"{path}/{number}")
    for key, part in schema.items() if isinstance(schema, dict) else ():
        here = f"{path}/{pointer(key)}"
        yield key, part, here
        yield from _keywords(part, here)
