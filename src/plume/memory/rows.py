"""What lies in a store as it lies there, expired rows included: for those who seal it anew or look whether it is sound.

Bodies go in and out as bytes; nothing here opens or seals one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

STEP = 50  # rows that are read, and replaced, at once


class RawConversation(NamedTuple):
    id: str
    user: str | None
    body: bytes


class RawMessage(NamedTuple):
    position: int
    id: str
    body: bytes
    vector: bytes | None = None


class RawDocument(NamedTuple):
    kind: str
    id: str
    revision: int
    user: str | None
    body: bytes


class Change(NamedTuple):
    """A message as it was and as it shall be."""

    old: RawMessage
    new: RawMessage


class Rows(Protocol):
    """The rows of one tenant. A body is replaced only where it still is the old one: what a live writer has replaced or
    deleted stays so."""

    def size(self) -> int:
        """How many conversations and documents there are, more or less."""
        ...

    def conversations(self, after: str | None) -> Sequence[RawConversation]:
        """The next of them, in an order of their own; none at the end."""
        ...

    def messages(self, id: str, after: int) -> Sequence[RawMessage]:
        """The next of them by position; none at the end."""
        ...

    def documents(self, after: tuple[str, str] | None) -> Sequence[RawDocument]:
        """The next behind a kind and id; none at the end."""
        ...

    def replace_conversation(self, old: RawConversation, body: bytes) -> None: ...
    def replace_document(self, old: RawDocument, body: bytes) -> None: ...
    def replace_messages(self, id: str, changes: Sequence[Change]) -> None:
        """Any of a conversation's, bodies and vectors each where they still are the old ones."""
        ...
