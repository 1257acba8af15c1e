"""What one tenant has in memory, with bodies as they lie in a row."""

from __future__ import annotations

import json
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from plume.errors import ConversationChanged, DocumentChanged
from plume.memory.bodies import Bodies
from plume.memory.records import expiry, json_bytes, lifetime, message_bytes, metadata_bytes, microseconds, seconds
from plume.memory.sealing.seal import MARK
from plume.memory.store import (
    VAULT,
    Clock,
    Conversation,
    Counts,
    Document,
    Item,
    bounds,
    checked_name,
    checked_user,
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

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class _Raw:
    id: str
    created_at: float
    body: bytes


@dataclass(slots=True)
class _Kept:
    """A conversation with its metadata as it lies there, its messages and vectors by position, the positions in order,
    and where each id stands."""

    conversation: Conversation
    body: bytes
    items: dict[int, _Raw] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    vectors: dict[int, bytes] = field(default_factory=dict)


class InMemoryTenant:
    def __init__(self, bodies: Bodies, clock: Clock, lock: threading.RLock, keys: InMemoryTenant | None) -> None:
        self.name = bodies.tenant
        self._bodies, self._clock, self._lock, self._others = bodies, clock, lock, keys
        self.kept: dict[str, _Kept] = {}
        self.documents_kept: dict[tuple[str, str], Document] = {}  # with their bodies as they lie there
        self._lifetime: float | None = None

    def holds_anything(self) -> bool:
        return bool(self.kept or self.documents_kept)

    def create(
        self,
        id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Conversation:
        id = new_id("conv") if id is None else checked_name("conversation", id)
        checked_user(user)
        body = metadata_bytes(metadata)
        with self._now() as now:
            if id in self.kept and _visible(self.kept[id].conversation, now):
                raise taken(id)
            if id in self.kept:
                self._drop([id], ())
            ends = expiry(now, self._lifetime if ttl is None else ttl)
            ended = None if ends is None else seconds(ends)
            made = Conversation(id, 0, seconds(now), seconds(now), ended, {}, user)
            self.kept[id] = _Kept(made, self._bodies.sealed_metadata(self._keys(user), user, id, body))
            return self._shown(self.kept[id])

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
        with self._now() as now:
            kept = self._find(id, now)
            start, end = bisect_right(kept.order, low), bisect_left(kept.order, high)
            part = slice(start, min(end, start + limit)) if last is None else slice(max(start, end - limit), end)
            return replace(self._shown(kept), items=tuple(self._items(kept, kept.order[part])))

    def item(self, id: str, item: str) -> Item:
        with self._now() as now:
            kept = self._find(id, now)
            if item not in kept.positions:
                raise no_item(id, item)
            return self._items(kept, [kept.positions[item]])[0]

    def append(
        self, id: str, messages: Sequence[Message], *, at: int | None = None, ids: Sequence[str] | None = None
    ) -> tuple[Item, ...]:
        names, bodies = named(messages, ids), [message_bytes(message) for message in messages]
        with self._now() as now:
            kept = self._find(id, now)
            found = self._items(kept, [kept.positions[name] for name in names if name in kept.positions])
            known = {item.id: item for item in found}
            for name, message in zip(names, messages, strict=True):
                if name in known:
                    same_message(known[name], message)
            new = [entry for entry in zip(names, messages, bodies, strict=True) if entry[0] not in known]
            head = kept.conversation.head
            if new and at is not None and at != head:
                raise ConversationChanged(id, at, head)
            moment = max(seconds(now), kept.conversation.updated_at)
            if new:
                user, placed = (
                    kept.conversation.user,
                    [(at, name, body) for at, (name, _, body) in enumerate(new, head)],
                )
                sealed = self._bodies.sealed_messages(self._keys(user), user, id, placed)
                for (position, name, _), (_, message, _), raw in zip(placed, new, sealed, strict=True):
                    kept.items[position], kept.positions[name] = _Raw(name, moment, raw), position
                    kept.order.append(position)
                    known[name] = Item(name, position, message, moment)
                kept.conversation = replace(kept.conversation, head=head + len(new), updated_at=moment)
            return tuple(known[name] for name in names)

    def remove(self, id: str, items: Sequence[str]) -> Conversation:
        with self._now() as now:
            kept = self._find(id, now)
            for item in items:
                if item not in kept.positions:
                    raise no_item(id, item)
            for item in set(items):
                position = kept.positions.pop(item)
                del kept.items[position]
                del kept.order[bisect_left(kept.order, position)]
                kept.vectors.pop(position, None)
            moment = max(seconds(now), kept.conversation.updated_at)
            moved = kept.conversation.head + bool(items)
            kept.conversation = replace(kept.conversation, head=moved, updated_at=moment)
            return self._shown(kept)

    def update(self, id: str, metadata: Mapping[str, Any]) -> Conversation:
        body = metadata_bytes(metadata)
        with self._now() as now:
            kept = self._find(id, now)
            user = kept.conversation.user
            kept.body = self._bodies.sealed_metadata(self._keys(user), user, id, body)
            moment = max(seconds(now), kept.conversation.updated_at)
            kept.conversation = replace(kept.conversation, updated_at=moment)
            return self._shown(kept)

    def conversations(
        self, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Conversation, ...]:
        size = page_size(limit)
        with self._now() as now:
            found = [kept.conversation for kept in self.kept.values() if _visible(kept.conversation, now)]
            found = sorted((one for one in found if user in (None, one.user)), key=_age, reverse=True)
            if after is not None:
                last = _age(self._find(after, now).conversation)
                found = [one for one in found if _age(one) < last]
            return tuple(self._shown(self.kept[one.id]) for one in found[:size])

    def delete(self, id: str) -> None:
        with self._now() as now:
            self._find(id, now)
            self._drop([id], ())

    def index(self, conversation: Conversation, vectors: Mapping[int, bytes]) -> None:
        with self._now() as now:
            kept = self._find(conversation.id, now)
            if kept.conversation.created_at != conversation.created_at:
                raise no_conversation(conversation.id)
            user, there = kept.conversation.user, {place: raw for place, raw in vectors.items() if place in kept.items}
            kept.vectors |= self._bodies.sealed_vectors(self._keys(user), user, conversation.id, there)

    def vectors(self, id: str, *, after: int | None = None) -> dict[int, bytes]:
        low, _, _ = bounds(after, None, None, None)
        with self._now() as now:
            raws = {place: raw for place, raw in sorted(self._find(id, now).vectors.items()) if place > low}
            return self._bodies.vectors(id, raws)

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
        checked_user(user)
        raw = json_bytes(body, "document")
        with self._now() as now:
            old = self.documents_kept.get((kind, id))
            if old is not None and not _visible(old, now):
                old = None
            revision = old.revision if old else 0
            if at is not None and at != revision:
                raise DocumentChanged(kind, id, at, revision)
            made, moment = old.created_at if old else seconds(now), seconds(now)
            ends = expiry(now, ttl)
            ended = None if ends is None else seconds(ends)
            sealed = self._bodies.sealed_document(self._keys(user), user, kind, id, revision + 1, raw)
            self.documents_kept[kind, id] = Document(kind, id, revision + 1, made, moment, ended, sealed, user)
            return self.get(kind, id)

    def get(self, kind: str, id: str) -> Document:
        with self._now() as now:
            found = self.documents_kept.get((kind, id))
            if found is None or not _visible(found, now):
                raise no_document(kind, id)
            return self._opened(found)

    def documents(
        self, kind: str, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Document, ...]:
        size = page_size(limit)
        with self._now() as now:
            found = [one for one in self.documents_kept.values() if one.kind == kind and _visible(one, now)]
            found = sorted((one for one in found if user in (None, one.user)), key=_age, reverse=True)
            if after is not None:
                last = _age(self.get(kind, after))
                found = [one for one in found if _age(one) < last]
            return tuple(self._opened(one) for one in found[:size])

    def kinds(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted({kind for kind, _ in self.documents_kept}, key=str.encode))

    def discard(self, kind: str, id: str) -> None:
        with self._now():
            self.get(kind, id)
            del self.documents_kept[kind, id]

    def _keys(self, user: str | None) -> bytes:
        """What the store holds of this person's keys; the first is made here."""
        sealing = self._bodies.sealing
        if not sealing.active or self._others is None:
            return b""
        name, kept = sealing.person(self.name, user), self._others.documents_kept
        if (self.name, name) not in kept:
            mark = kept[MARK].body if MARK in kept else None
            self._others.put(self.name, name, json.loads(sealing.first_keys(self.name, user, mark)))
        return bytes(kept[self.name, name].body)

    def _shown(self, kept: _Kept) -> Conversation:
        one = kept.conversation
        return replace(one, metadata=self._bodies.metadata(one.id, one.user, kept.body))

    def _items(self, kept: _Kept, positions: Sequence[int]) -> list[Item]:
        rows = [(position, kept.items[position]) for position in positions]
        messages = self._bodies.messages(kept.conversation.id, [(place, row.id, row.body) for place, row in rows])
        return [
            Item(row.id, place, message, row.created_at) for (place, row), message in zip(rows, messages, strict=True)
        ]

    def _opened(self, one: Document) -> Document:
        return replace(one, body=self._bodies.document(one.kind, one.id, one.revision, one.user, one.body))

    def lifetime(self) -> float | None:
        return self._lifetime

    def set_lifetime(self, ttl: float | None) -> None:
        lifetime(ttl)
        self._lifetime = ttl

    def erase(self, user: str | None = None) -> Counts:
        with self._lock:
            if user is None:
                self._lifetime = None
            return self._drop(
                [id for id, kept in self.kept.items() if user in (None, kept.conversation.user)],
                [key for key, one in self.documents_kept.items() if user in (None, one.user)],
            )

    def sweep(self, limit: int) -> Counts:
        with self._now() as now:
            ended = [id for id, kept in self.kept.items() if not _visible(kept.conversation, now)][:limit]
            documents = [key for key, one in self.documents_kept.items() if not _visible(one, now)]
            return self._drop(ended, documents[: limit - len(ended)])

    def _drop(self, ids: Sequence[str], documents: Sequence[tuple[str, str]]) -> Counts:
        messages = sum(len(self.kept.pop(id).items) for id in ids)
        gone = {*documents, *((VAULT, id) for id in ids)} & self.documents_kept.keys()
        for key in gone:
            del self.documents_kept[key]
        return Counts(len(ids), messages, len(gone))

    @contextmanager
    def _now(self) -> Iterator[int]:
        with self._lock:
            yield microseconds(self._clock())

    def _find(self, id: str, now: int) -> _Kept:
        kept = self.kept.get(id)
        if kept is None or not _visible(kept.conversation, now):
            raise no_conversation(id)
        return kept


def _visible(one: Conversation | Document, now: int) -> bool:
    return one.expires_at is None or microseconds(one.expires_at) > now


def _age(one: Conversation | Document) -> tuple[float, bytes]:
    return one.created_at, one.id.encode("utf-8")
