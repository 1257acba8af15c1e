"""JSON pointers (RFC 6901), and references within a schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

_SHOWN = 60  # characters of a pointer at either end


def pointer(key: str) -> str:
    """One key as a part of a pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def shortened(path: str) -> str:
    """A pointer for people: without its middle where it is long."""
    return path if len(path) <= 2 * _SHOWN else f"{path[:_SHOWN]} … {path[-_SHOWN:]}"


def target(whole: Any, ref: str) -> tuple[str, Any] | None:
    """Place and value of what a reference within a schema leads to: `#`, `#/…`, or `#name` of an anchor; None when it
    leads nowhere."""
    name = unquote(ref[1:])
    if name and not name.startswith("/"):
        return next(_anchored(whole, name), None)
    path = ""
    for part in name.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(whole, dict) and part in whole:
            whole = whole[part]
        elif isinstance(whole, list) and part.isdecimal() and int(part) < len(whole):
            whole = whole[int(part)]
        else:
            return None
        path += f"/{pointer(part)}"
    return path, whole


def found(whole: Any, ref: str) -> Any:
    """The value alone, None when there is none."""
    return (target(whole, ref) or ("", None))[1]


def _anchored(whole: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The schemas with this anchor: `$anchor`, and what `$id` and `id` were before there was that."""
    waiting = [("", whole)]
    while waiting:
        path, schema = waiting.pop()
        if isinstance(schema, dict):
            if schema.get("$anchor") == name or f"#{name}" in (schema.get("$id"), schema.get("id")):
                yield path, schema
            waiting += [(f"{path}/{pointer(key)}", part) for key, part in schema.items()]
        elif isinstance(schema, list):
            waiting += [(f"{path}/{number}", part) for number, part in enumerate(schema)]
