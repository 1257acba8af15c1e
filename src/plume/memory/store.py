"""What a store promises: conversations and documents, each of one tenant, in an order that nobody can confuse.

Everything goes through a `Tenant`, so nothing can be asked for without saying whose it is. What another tenant has
is not found, in the same words as what nobody has. Times are seconds since 1970, UTC, by the store's clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from plume.errors import AlreadyExists, NotFound, UserError, shown
from plume.types import Message

if TYPE_CHECKING:
    from plume.memory.rows import Rows
    from plume.memory.sealing.seal import Sealing
    from plume.memory.sql.search_tables import SearchTables

Clock = Callable[[], float]

MANY = 2**31 - 1  # more than any conversation has
LOCAL = "local"  # the tenant of who asks on this machine
VAULT = "vault"  # the kind of document that belongs to the conversation whose id it has, and goes when that goes
RESERVED = "plume:"  # begins the names of tenants of Plume's own
SEARCH_HERE = "leave `inside` out, and recall searches in this process's memory"
FAR = 2**50  # beyond every position, and exact in every database
NAME_BYTES = 255  # of an id or a tenant's name in UTF-8: what every database can keep in an index


class Item(NamedTuple):
    """A message where it stands. Positions count from 0 and are never used twice."""

    id: str
    position: int
    message: Message
    created_at: float


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as it was at one moment; `items` only as `read` gives it.

    `head` is the position of the next message, and what a writer says that it has read. Removing messages moves it on,
    too, so that it never comes back to an old value: without removals it is the number of messages. `user` is the
    person within the tenant whom it is about, None for the tenant's own.
    """

    id: str
    head: int
    created_at: float
    updated_at: float
    expires_at: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    user: str | None = None
    items: tuple[Item, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(item.message for item in self.items)


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON value under a name. `revision` counts its versions from 1; `user` is whom it is about, as for a
    conversation."""

    kind: str
    id: str
    revision: int
    created_at: float
    updated_at: float
    expires_at: float | None
    body: Any
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What was removed."""

    conversations: int = 0
    messages: int = 0
    documents: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.conversations + other.conversations,
            self.messages + other.messages,
            self.documents + other.documents,
        )

    def __bool__(self) -> bool:
        return self != Counts()


class Line(NamedTuple):
    """Of the audit trail. Numbers grow."""

    number: int
    at: float
    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Durability:
    """Does what was acknowledged survive a power cut? `settings` are those in force, `problem` what is wrong with them.

    `note` is something to know that puts nothing at risk as long as only Plume writes.
    """

    settings: Mapping[str, str]
    problem: str | None = None
    note: str | None = None


def unsafe(settings: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    """What puts acknowledged messages at risk."""
    found = {name: settings.get(name) for name in wanted}
    wrong = [f"{name} is {found[name]}, not {value}" for name, value in wanted.items() if found[name] != value]
    return f"a power cut may lose the last messages: {'; '.join(wrong)}" if wrong else None


class Tenant(Protocol):
    """The conversations and documents of one tenant.

    Every call but `create` and `put` raises NotFound for what is not there, has expired, or is somebody else's. A call
    that writes is done wholly or not at all, and is on disk when it returns (see `Store.durability`). Raises UserError
    for names and values that cannot be kept, PlumeError when the store fails.
    """

    @property
    def name(self) -> str: ...

    def create(
        self,
        id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Conversation:
        """A new empty conversation about `user`, invisible after `ttl` seconds or, without, the tenant's lifetime.
        Raises AlreadyExists for an `id` in use."""
        ...

    def read(
        self,
        id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        first: int | None = None,
        last: int | None = None,
    ) -> Conversation:
        """The conversation with its messages in order, all of one moment: those between the positions `after` and
        `before`, without these; of them at most the `first` or the `last` so many."""
        ...

    def item(self, id: str, item: str) -> Item:
        """One message by its id."""
        ...

    def append(
        self, id: str, messages: Sequence[Message], *, at: int | None = None, ids: Sequence[str] | None = None
    ) -> tuple[Item, ...]:
        """Add messages at the end, all of them or none, and return them as they stand.

        Raises ConversationChanged when `at` is not the head; without `at` the end is wherever it is. `ids` are the
        writer's own names for the messages: one that is known already is not stored again but returned as it stands,
        so an append may be repeated until it succeeds. Raises UserError when a known id means another message.
        """
        ...

    def remove(self, id: str, items: Sequence[str]) -> Conversation:
        """Take messages out, all of them or none. Their positions stay empty, and the head moves on by one."""
        ...

    def update(self, id: str, metadata: Mapping[str, Any]) -> Conversation:
        """Replace the metadata."""
        ...

    def conversations(
        self, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Conversation, ...]:
        """Newest first, without messages; `after` is the id that the last page ended with. With `user` only those
        about that person."""
        ...

    def delete(self, id: str) -> None:
        """Delete the conversation with all its messages, and its vault."""
        ...

    def index(self, conversation: Conversation, vectors: Mapping[int, bytes]) -> None:
        """Keep a vector with each message by its position, in the place of what it had. Messages that are no longer
        there get none; NotFound where the conversation is another than was read. Head and times stay as they are."""
        ...

    def vectors(self, id: str, *, after: int | None = None) -> Mapping[int, bytes]:
        """Of the messages behind the position `after` that have one."""
        ...

    def put(
        self,
        kind: str,
        id: str,
        body: Any,
        *,
        at: int | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Document:
        """Write a document. Raises DocumentChanged when `at` is not its revision, 0 standing for none; without `at`
        the last writer wins. Every version says anew how long it lives and whom it is about."""
        ...

    def get(self, kind: str, id: str) -> Document:
        """The document as it is now."""
        ...

    def documents(
        self, kind: str, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Document, ...]:
        """Those of one kind, newest first; `after` is the id that the last page ended with. With `user` only those
        about that person."""
        ...

    def kinds(self) -> tuple[str, ...]:
        """Of which there are documents, be it expired ones; in the order of their bytes."""
        ...

    def discard(self, kind: str, id: str) -> None:
        """Delete a document."""
        ...

    def lifetime(self) -> float | None:
        """After how many seconds a new conversation ends whose `ttl` nobody gives; None for never."""
        ...

    def set_lifetime(self, ttl: float | None) -> None:
        """For those that are created from now on."""
        ...

    def erase(self, user: str | None = None) -> Counts:
        """Delete everything about that person, or everything of the tenant, expired or not. `rights.erase` does what
        else belongs to it. Conversations go whole; if it is interrupted, it may be repeated."""
        ...


class Store(Protocol):
    """Where conversations are kept. May be used by many threads; another process opens its own."""

    def tenant(self, name: str) -> Tenant:
        """The only way to what is stored. Raises UserError for a name that cannot be kept."""
        ...

    def tenants(self, *, after: str | None = None, limit: int = 100) -> tuple[str, ...]:
        """The names of those who have anything, be it expired, in the order of their bytes; `after` is the name that
        the last page ended with."""
        ...

    @property
    def sealing(self) -> Sealing:
        """Who seals what is stored."""
        ...

    def rows(self, tenant: str) -> Rows:
        """What is stored as it lies there, for who seals it anew or examines it."""
        ...

    def search_tables(self) -> SearchTables:
        """Where the database itself searches. Raises UserError, with the reason, where it cannot."""
        ...

    def sweep(self, limit: int = 1000) -> Counts:
        """Delete at most so many conversations and documents that have expired. Several programs may do it at once."""
        ...

    def scrub(self) -> tuple[str, ...]:
        """Overwrite what the database still holds of deleted rows, as far as that stops nobody's work. Gives what is
        left to do for who runs the database."""
        ...

    def destroy_keys(self, tenant: str, user: str | None) -> bool:
        """Of that person, or of everybody in the tenant, where bodies are sealed. Was there one?"""
        ...

    def note(self, entry: Mapping[str, Any]) -> Line:
        """Add a line to the audit trail. No call changes or removes one."""
        ...

    def trail(self, *, after: int | None = None, limit: int = 100) -> tuple[Line, ...]:
        """Oldest first; `after` is the number that the last page ended with."""
        ...

    def durability(self) -> Durability: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def new_id(prefix: str) -> str:
    """An id that nobody can guess: 144 random bits. The milliseconds before them lay ids that follow each other side by
    side in an index, so that an append writes to one page of it and not to any."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{os.urandom(18).hex()}"


def is_name(text: str) -> bool:
    """Can this be an id or a tenant's name? What cannot was never stored, so looking for it finds nothing."""
    try:
        return 0 < len(text) <= NAME_BYTES and len(text.encode("utf-8")) <= NAME_BYTES
    except UnicodeEncodeError:
        return False


def checked_name(what: str, text: str) -> str:
    """The name itself. Raises UserError for one that cannot be kept."""
    if not is_name(text):
        hint = f"use 1 to {NAME_BYTES} bytes of UTF-8"
        raise UserError(f"{shown(text)} cannot be the name of a {what}", hint)
    return text


def unreserved(tenant: str) -> str:
    """The name itself. Raises UserError for a tenant of Plume's own: keys and audit trail are nobody's data."""
    if tenant.startswith(RESERVED):
        raise UserError(f"{shown(tenant)} is Plume's own", f"name a tenant that does not begin with {RESERVED}")
    return tenant


def bounds(after: int | None, before: int | None, first: int | None, last: int | None) -> tuple[int, int, int]:
    """The positions between which to read, and how many at most. Raises UserError for what cannot be meant."""
    if first is not None and last is not None:
        raise UserError("first and last were both given", "ask for one of them")
    limit = last if first is None else first
    low = -1 if after is None else max(-1, min(after, FAR))
    high = FAR if before is None else max(0, min(before, FAR))
    return low, high, MANY if limit is None else page_size(limit)


def no_search_tables(store: str) -> UserError:
    return UserError(f"{store}: of all stores only PostgreSQL, with pgvector, searches by itself", SEARCH_HERE)


def checked_user(user: str | None) -> str | None:
    return None if user is None else checked_name("user", user)


def page_size(limit: int) -> int:
    """Raises UserError for one below 0."""
    if limit < 0:
        raise UserError(f"{limit} were asked for", "ask for none or more")
    return min(limit, MANY)


def named(messages: Sequence[Message], ids: Sequence[str] | None) -> list[str]:
    """An id for each message: the writer's own, or new ones. Raises UserError when they do not fit."""
    if ids is None:
        return [new_id("msg") for _ in messages]
    if len(ids) != len(messages) or len(set(ids)) != len(ids):
        raise UserError(f"{len(messages)} messages with {len(set(ids))} ids", "give each message an id of its own")
    return [checked_name("message", id) for id in ids]


def no_conversation(id: str) -> NotFound:
    return NotFound(f"there is no conversation {shown(id)}")


def taken(id: str) -> AlreadyExists:
    return AlreadyExists(f"there is a conversation {shown(id)} already", "read it, or choose another id")


def no_item(id: str, item: str) -> NotFound:
    return NotFound(f"there is no message {shown(item)} in conversation {shown(id)}")


def no_document(kind: str, id: str) -> NotFound:
    return NotFound(f"there is no {shown(kind)} {shown(id)}")


def same_message(known: Item, message: Message) -> Item:
    """The stored message, which a repeated append must mean. Raises UserError when it means another."""
    if known.message != message:
        hint = "give every new message a new id; repeat an append with exactly what it was"
        raise UserError(f"the id {shown(known.id)} belongs to another message", hint)
    return known
