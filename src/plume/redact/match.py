"""What a recogniser gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Match(NamedTuple):
    """Some text of one kind: `text` stands at characters `start` to `end`."""

    kind: str
    start: int
    end: int
    text: str


Recogniser = Callable[[str], Iterator[Match]]
