"""Definitions that nothing refers to: JSON Schema gives them no meaning, so nothing of them need be enforced."""

from __future__ import annotations

from typing import Any

from plume.generation.constrain.pointer import pointer, target

CONTAINERS = ("$defs", "definitions")
_MAPS = ("dependencies", "dependentSchemas", "patternProperties", "properties")  # whose keys are names
_DATA = ("const", "default", "enum", "examples")


def unused(whole: Any) -> frozenset[str]:
    """The places of definitions that no reference reaches from the root. None are known where a reference may mean
    more than this document shows: there is an `$id` within it, or a reference by address."""
    refs, idle = _read("", whole)
    while refs:
        ref = refs.pop()
        if not ref.startswith("#"):
            return frozenset()
        place = (target(whole, ref) or ("", None))[0]
        for path in [path for path in idle if f"{place}/".startswith(f"{path}/")]:
            more, inner = _read(path, idle.pop(path))
            refs += [*more, ref]  # again: it may lead to a definition within this one
            idle |= inner
    return frozenset(idle)


def _read(path: str, schema: Any) -> tuple[list[str], dict[str, Any]]:
    """The references of a schema, ids of parts among them, and its definitions by their place, which are not read."""
    refs: list[str] = []
    defined: dict[str, Any] = {}
    waiting = [(path, schema)]
    while waiting:
        here, part = waiting.pop()
        if isinstance(part, list):
            waiting += [(f"{here}/{number}", inner) for number, inner in enumerate(part)]
        for key, value in part.items() if isinstance(part, dict) else ():
            below = f"{here}/{pointer(key)}"
            if isinstance(value, str):
                named = key in ("$id", "id") and here and not value.startswith("#")
                refs += [value] if key == "$ref" or named else []
            elif key in CONTAINERS and isinstance(value, dict):
                defined |= {f"{below}/{pointer(name)}": inner for name, inner in value.items()}
            elif key in _MAPS and isinstance(value, dict):
                waiting += [(f"{below}/{pointer(name)}", inner) for name, inner in value.items()]
            elif key not in _DATA:
                waiting.append((below, value))
    return refs, defined
