"""Where a message stands that may be found, where to look for it, and what a database keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """Of a message. Of equally good ones, the first in this order comes first."""

    conversation: str
    position: int
    item: str


class Within(NamedTuple):
    """One conversation, those about one person, what stands before a position; None for all."""

    conversation: str | None = None
    user: str | None = None
    before: int | None = None


class Followed(NamedTuple):
    """Up to which position the messages of a conversation can be found in the database, and by vectors of which
    model."""

    conversation: str
    head: int = 0
    model: str | None = None


class Entry(NamedTuple):
    """A message that can be found; `embedding` as pgvector reads one."""

    position: int
    words: Sequence[str]
    embedding: str | None
