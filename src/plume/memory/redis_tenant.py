"""One tenant on Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from plume.errors import ConversationChanged, DocumentChanged
from plume.memory.records import json_bytes, lifetime, message_bytes, messages_of, metadata_bytes, microseconds, seconds
from plume.memory.store import (
    Conversation,
    Counts,
    Document,
    Item,
    bounds,
    checked_name,
    checked_user,
    is_name,
    named,
    new_id,
    no_conversation,
    no_document,
    no_item,
    page_size,
    same_message,
    taken,
)
from plume.types import Message

BATCH = 100  # conversations and documents that one run of the script removes


class Runs(Protocol):
    """The store, as its tenants need it."""

    def run(self, tenant: str, operation: str, *arguments: str | int | bytes) -> list[Any]: ...


class RedisTenant:
    def __init__(self, store: Runs, name: str) -> None:
        self.name, self._store = name, store

    def create(
        self,
        id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Conversation:
        id = new_id("conv") if id is None else checked_name("conversation", id)
        word, *rest = self._on(id, "create", metadata_bytes(metadata), lifetime(ttl), checked_user(user) or "")
        if word == "taken":
            raise taken(id)
        return _conversation(id, rest[0])

    def read(
        self,
        id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        first: int | None = None,
        last: int | None = None,
    ) -> Conversation:
        low, high, limit = bounds(after, before, first, last)
        order = "first" if last is None else "last"
        _, fields, rows = self._on(id, "read", low, high, order, limit)
        found = _items(rows)
        return _conversation(id, fields, tuple(found if last is None else reversed(found)))

    def item(self, id: str, item: str) -> Item:
        word, *rest = self._on(id, "item", item if is_name(item) else "")
        if word != "ok":
            raise no_item(id, item)
        return _items(rest[0])[0]

    def append(
        self, id: str, messages: Sequence[Message], *, at: int | None = None, ids: Sequence[str] | None = None
    ) -> tuple[Item, ...]:
        names, bodies = named(messages, ids), [message_bytes(message) for message in messages]
        pairs = [part for pair in zip(names, bodies, strict=True) for part in pair]
        place = "" if at is None else at
        if not messages:
            self._on(id, "show")
            return ()
        word, *rest = self._on(id, "append", place, "", *pairs)
        known: dict[str, Item] = {}
        if word == "known":
            known = {item.id: item for item in _items(rest[0])}
            for name, message in zip(names, messages, strict=True):
                if name in known:
                    same_message(known[name], message)
            if len(known) < len(names):
                word, *rest = self._on(id, "append", place, "compared", *pairs)
        if word == "changed":
            raise ConversationChanged(id, cast(int, at), rest[0])
        if word == "ok":
            new = [(name, message) for name, message in zip(names, messages, strict=True) if name not in known]
            for (name, message), (position, moment) in zip(new, rest[0], strict=True):
                known[name] = Item(name, int(position), message, seconds(int(moment)))
        return tuple(known[name] for name in names)

    def remove(self, id: str, items: Sequence[str]) -> Conversation:
        names = list(dict.fromkeys(items))
        word, *rest = self._on(id, "remove", *(name if is_name(name) else "" for name in names))
        if word != "ok":
            raise no_item(id, names[rest[0]])
        return _conversation(id, rest[0])

    def update(self, id: str, metadata: Mapping[str, Any]) -> Conversation:
        _, fields = self._on(id, "update", metadata_bytes(metadata))
        return _conversation(id, fields)

    def conversations(
        self, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Conversation, ...]:
        if after is not None:
            self._on(after, "show")

        def show(id: str) -> list[Any]:
            return self._run("show", id)

        found = self._page("", user, after, page_size(limit), show)
        return tuple(_conversation(id, fields) for id, fields in found)

    def delete(self, id: str) -> None:
        self._on(id, "delete")

    def index(self, id: str, vectors: Mapping[int, bytes], *, created_at: float | None = None) -> None:
        pairs = [part for pair in vectors.items() for part in pair]
        self._on(id, "index", "" if created_at is None else microseconds(created_at), *pairs)

    def vectors(self, id: str, *, after: int | None = None) -> dict[int, bytes]:
        low, _, _ = bounds(after, None, None, None)
        _, found = self._on(id, "vectors", low)
        return {int(place): raw for place, raw in sorted(zip(found[::2], found[1::2], strict=True), key=_place)}

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
        checked_name("kind", kind)
        checked_name("document", id)
        place, whose = "" if at is None else at, checked_user(user) or ""
        word, *rest = self._to(kind, id, "put", json_bytes(body, "document"), place, lifetime(ttl), whose)
        if word == "changed":
            raise DocumentChanged(kind, id, cast(int, at), rest[0])
        return _document(kind, id, rest[0])

    def get(self, kind: str, id: str) -> Document:
        _, fields = self._to(kind, id, "get")
        return _document(kind, id, fields)

    def documents(
        self, kind: str, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Document, ...]:
        size = page_size(limit)
        if not is_name(kind):
            return ()
        if after is not None:
            self.get(kind, after)

        def show(id: str) -> list[Any]:
            return self._run("get", kind, id)

        found = self._page(kind, user, after, size, show)
        return tuple(_document(kind, id, fields) for id, fields in found)

    def kinds(self) -> tuple[str, ...]:
        _, names = self._run("kinds")
        return tuple(name.decode("utf-8") for name in sorted(names))

    def discard(self, kind: str, id: str) -> None:
        self._to(kind, id, "discard")

    def lifetime(self) -> float | None:
        _, length = self._run("lifetime")
        return seconds(int(length)) if length else None

    def set_lifetime(self, ttl: float | None) -> None:
        self._run("set_lifetime", lifetime(ttl))

    def erase(self, user: str | None = None) -> Counts:
        removed = Counts()
        if user is not None and not is_name(user):
            return removed
        while found := counted(self._run("erase", user or "", BATCH)):
            removed += found
        return removed

    def _on(self, id: str, operation: str, *arguments: str | int | bytes) -> list[Any]:
        if not is_name(id):
            raise no_conversation(id)
        answer = self._run(operation, id, *arguments)
        if answer[0] == "none":
            raise no_conversation(id)
        return answer

    def _to(self, kind: str, id: str, operation: str, *arguments: str | int | bytes) -> list[Any]:
        if not is_name(kind) or not is_name(id):
            raise no_document(kind, id)
        answer = self._run(operation, kind, id, *arguments)
        if answer[0] == "none":
            raise no_document(kind, id)
        return answer

    def _run(self, operation: str, *arguments: str | int | bytes) -> list[Any]:
        return self._store.run(self.name, operation, *arguments)

    def _page(
        self, kind: str, user: str | None, after: str | None, limit: int, show: Callable[[str], list[Any]]
    ) -> list[tuple[str, list[Any]]]:
        """Up to `limit` that are still visible: what has expired stays in the order until it is swept. An empty `kind`
        stands for conversations."""
        found: list[tuple[str, list[Any]]] = []
        if user is not None and not is_name(user):
            return found
        last = after or ""
        while len(found) < limit:
            _, names = self._run("page", kind, user or "", last, limit - len(found))
            if not names:
                break
            for last in map(bytes.decode, names):
                word, *rest = show(last)
                if word == "ok":
                    found.append((last, rest[0]))
        return found


def _place(pair: tuple[bytes, bytes]) -> int:
    return int(pair[0])


def counted(answer: list[Any]) -> Counts:
    return Counts(*answer[1:])


def _times(created: bytes, updated: bytes, ends: bytes) -> tuple[float, float, float | None]:
    return seconds(int(created)), seconds(int(updated)), seconds(int(ends)) if ends else None


def _conversation(id: str, fields: list[bytes], items: tuple[Item, ...] = ()) -> Conversation:
    head, created, updated, ends, body, user = fields
    return Conversation(id, int(head), *_times(created, updated, ends), json.loads(body), _user(user), items)


def _document(kind: str, id: str, fields: list[bytes]) -> Document:
    revision, created, updated, ends, body, user = fields
    return Document(kind, id, int(revision), *_times(created, updated, ends), json.loads(body), _user(user))


def _user(field: bytes | None) -> str | None:
    return field.decode("utf-8") if field else None


def _items(packed: Sequence[bytes]) -> list[Item]:
    rows = [row.split(b" ", 3) for row in packed]
    lengths = [int(row[2]) for row in rows]
    messages = messages_of([row[3][length:] for row, length in zip(rows, lengths, strict=True)])
    return [
        Item(rest[:length].decode(), int(place.partition(b"-")[0]), message, seconds(int(moment)))
        for (place, moment, _, rest), length, message in zip(rows, lengths, messages, strict=True)
    ]
