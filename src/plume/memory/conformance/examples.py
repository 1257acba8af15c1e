"""What people and attackers say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from plume.errors import PlumeError
from plume.types import Message

PLANES = "".join(chr(plane * 0x10000 + place) for plane in range(17) for place in (0x41, 0x3B1, 0xE000, 0xFFFD))
HOSTILE = [
    "'; DROP TABLE plume_items; --",
    '" OR ""="',
    "' UNION SELECT * FROM plume_documents --",
    "%",
    "_",
    "a.b[0]",
    "$.metadata",
    "*",
    "a:b",
    "{a}",
    "\r\nFLUSHALL\r\n",
    "\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    "')) return redis.call('FLUSHALL') --",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "C:\\windows\\system32",
    "\\\\server\\share",
    "CON",
    "~",
    "${HOME}",
    "`id`",
    "\0",
    "a\0b",
    "a",
    "A",
    "a ",
    " a",
    "é",
    "e\u0301",
    "ß",
    "ss",
    "\u202egauche",
    "\ufeff",
    PLANES,
]


def said(*contents: str) -> list[Message]:
    return [Message("assistant" if place % 2 else "user", content) for place, content in enumerate(contents)]


def refusal(call: Callable[[], object]) -> tuple[type[BaseException], str, str | None]:
    with pytest.raises(PlumeError) as error:
        call()
    return type(error.value), error.value.message, error.value.hint
