"""JSON pointers (RFC 6901)."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote


def pointer(key: str) -> str:
    """One key as a part of a pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def found(whole: Any, ref: str) -> Any:
    """What a reference within a schema (`#/…`) leads to; None when it leads nowhere."""
    for name in unquote(ref[1:]).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(whole, dict):
            whole = whole.get(name)
        elif isinstance(whole, list) and name.isdecimal() and int(name) < len(whole):
            whole = whole[int(name)]
        else:
            return None
    return whole
