"""A store in this process's memory: for trying out, for tests, and as the plainest statement of what the others do."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from plume.errors import ConversationChanged, DocumentChanged
from plume.memory.records import expiry, json_bytes, lifetime, message_bytes, metadata_bytes, microseconds, seconds
from plume.memory.store import (
    Clock,
    Conversation,
    Counts,
    Document,
    Durability,
    Item,
    Line,
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


class InMemoryStore:
    """Nothing is written anywhere; it ends with the process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or time.time
        self._lock = threading.RLock()
        self._tenants: dict[str, _Tenant] = {}
        self._trail: list[Line] = []

    def __repr__(self) -> str:
        return "InMemoryStore()"

    def tenant(self, name: str) -> _Tenant:
        checked_name("tenant", name)
        with self._lock:
            return self._tenants.setdefault(name, _Tenant(name, self._clock, self._lock))

    def tenants(self, *, after: str | None = None, limit: int = 100) -> tuple[str, ...]:
        size = page_size(limit)
        with self._lock:
            names = sorted((name for name, one in self._tenants.items() if one.holds_anything()), key=str.encode)
            return tuple(name for name in names if after is None or _behind(name, after))[:size]

    def sweep(self, limit: int = 1000) -> Counts:
        removed, size = Counts(), page_size(limit)
        with self._lock:
            for tenant in self._tenants.values():
                removed += tenant.sweep(size - removed.conversations - removed.documents)
        return removed

    def scrub(self) -> tuple[str, ...]:
        return ()

    def destroy_keys(self, tenant: str, user: str | None) -> bool:  # noqa: ARG002
        return False

    def note(self, entry: Mapping[str, Any]) -> Line:
        kept = json.loads(json_bytes(dict(entry), "audit line"))
        with self._lock:
            line = Line(len(self._trail) + 1, seconds(microseconds(self._clock())), kept)
            self._trail.append(line)
            return line._replace(entry=_again(kept))

    def trail(self, *, after: int | None = None, limit: int = 100) -> tuple[Line, ...]:
        start, size = max(0, after or 0), page_size(limit)
        with self._lock:
            return tuple(line._replace(entry=_again(line.entry)) for line in self._trail[start : start + size])

    def durability(self) -> Durability:
        return Durability({}, "what is kept in memory ends with the process")

    def close(self) -> None:
        self._tenants.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class _Kept:
    """A conversation, its messages and vectors by position, the positions in order, and where each id stands."""

    conversation: Conversation
    items: dict[int, Item] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    vectors: dict[int, bytes] = field(default_factory=dict)


class _Tenant:
    def __init__(self, name: str, clock: Clock, lock: threading.RLock) -> None:
        self.name = name
        self._clock, self._lock = clock, lock
        self._kept: dict[str, _Kept] = {}
        self._documents: dict[tuple[str, str], Document] = {}
        self._lifetime: float | None = None

    def holds_anything(self) -> bool:
        return bool(self._kept or self._documents)

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
        kept = json.loads(metadata_bytes(metadata))
        with self._now() as now:
            if id in self._kept and _visible(self._kept[id].conversation, now):
                raise taken(id)
            ends = expiry(now, self._lifetime if ttl is None else ttl)
            ended = None if ends is None else seconds(ends)
            made = Conversation(id, 0, seconds(now), seconds(now), ended, kept, user)
            self._kept[id] = _Kept(made)
            return _copy(made)

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
            items = tuple(kept.items[position] for position in kept.order[part])
            return replace(_copy(kept.conversation), items=items)

    def item(self, id: str, item: str) -> Item:
        with self._now() as now:
            kept = self._find(id, now)
            if item not in kept.positions:
                raise no_item(id, item)
            return kept.items[kept.positions[item]]

    def append(
        self, id: str, messages: Sequence[Message], *, at: int | None = None, ids: Sequence[str] | None = None
    ) -> tuple[Item, ...]:
        names = named(messages, ids)
        for message in messages:
            message_bytes(message)
        with self._now() as now:
            kept = self._find(id, now)
            known = {name: kept.items[kept.positions[name]] for name in names if name in kept.positions}
            for name, message in zip(names, messages, strict=True):
                if name in known:
                    same_message(known[name], message)
            new = [(name, message) for name, message in zip(names, messages, strict=True) if name not in known]
            head = kept.conversation.head
            if new and at is not None and at != head:
                raise ConversationChanged(id, at, head)
            moment = max(seconds(now), kept.conversation.updated_at)
            for position, (name, message) in enumerate(new, head):
                known[name] = kept.items[position] = Item(name, position, message, moment)
                kept.positions[name] = position
                kept.order.append(position)
            if new:
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
            return _copy(kept.conversation)

    def update(self, id: str, metadata: Mapping[str, Any]) -> Conversation:
        changed = json.loads(metadata_bytes(metadata))
        with self._now() as now:
            kept = self._find(id, now)
            moment = max(seconds(now), kept.conversation.updated_at)
            kept.conversation = replace(kept.conversation, metadata=changed, updated_at=moment)
            return _copy(kept.conversation)

    def conversations(
        self, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Conversation, ...]:
        size = page_size(limit)
        with self._now() as now:
            found = [kept.conversation for kept in self._kept.values() if _visible(kept.conversation, now)]
            found = sorted((one for one in found if user in (None, one.user)), key=_age, reverse=True)
            if after is not None:
                last = _age(self._find(after, now).conversation)
                found = [one for one in found if _age(one) < last]
            return tuple(_copy(one) for one in found[:size])

    def delete(self, id: str) -> None:
        with self._now() as now:
            self._find(id, now)
            del self._kept[id]

    def index(self, id: str, vectors: Mapping[int, bytes], *, created_at: float | None = None) -> None:
        with self._now() as now:
            kept = self._find(id, now)
            if created_at not in (None, kept.conversation.created_at):
                raise no_conversation(id)
            kept.vectors |= {position: bytes(raw) for position, raw in vectors.items() if position in kept.items}

    def vectors(self, id: str, *, after: int | None = None) -> dict[int, bytes]:
        low, _, _ = bounds(after, None, None, None)
        with self._now() as now:
            return {place: raw for place, raw in sorted(self._find(id, now).vectors.items()) if place > low}

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
        kept = json.loads(json_bytes(body, "document"))
        with self._now() as now:
            old = self._documents.get((kind, id))
            if old is not None and not _visible(old, now):
                old = None
            revision = old.revision if old else 0
            if at is not None and at != revision:
                raise DocumentChanged(kind, id, at, revision)
            made, moment = old.created_at if old else seconds(now), seconds(now)
            ends = expiry(now, ttl)
            ended = None if ends is None else seconds(ends)
            self._documents[kind, id] = Document(kind, id, revision + 1, made, moment, ended, kept, user)
            return self.get(kind, id)

    def get(self, kind: str, id: str) -> Document:
        with self._now() as now:
            found = self._documents.get((kind, id))
            if found is None or not _visible(found, now):
                raise no_document(kind, id)
            return replace(found, body=_again(found.body))

    def documents(
        self, kind: str, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Document, ...]:
        size = page_size(limit)
        with self._now() as now:
            found = [one for one in self._documents.values() if one.kind == kind and _visible(one, now)]
            found = sorted((one for one in found if user in (None, one.user)), key=_age, reverse=True)
            if after is not None:
                last = _age(self.get(kind, after))
                found = [one for one in found if _age(one) < last]
            return tuple(replace(one, body=_again(one.body)) for one in found[:size])

    def kinds(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted({kind for kind, _ in self._documents}, key=str.encode))

    def discard(self, kind: str, id: str) -> None:
        with self._now():
            self.get(kind, id)
            del self._documents[kind, id]

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
                [id for id, kept in self._kept.items() if user in (None, kept.conversation.user)],
                [key for key, one in self._documents.items() if user in (None, one.user)],
            )

    def sweep(self, limit: int) -> Counts:
        with self._now() as now:
            ended = [id for id, kept in self._kept.items() if not _visible(kept.conversation, now)][:limit]
            documents = [key for key, one in self._documents.items() if not _visible(one, now)]
            return self._drop(ended, documents[: limit - len(ended)])

    def _drop(self, ids: Sequence[str], documents: Sequence[tuple[str, str]]) -> Counts:
        messages = sum(len(self._kept.pop(id).items) for id in ids)
        for key in documents:
            del self._documents[key]
        return Counts(len(ids), messages, len(documents))

    @contextmanager
    def _now(self) -> Iterator[int]:
        with self._lock:
            yield microseconds(self._clock())

    def _find(self, id: str, now: int) -> _Kept:
        kept = self._kept.get(id)
        if kept is None or not _visible(kept.conversation, now):
            raise no_conversation(id)
        return kept


def _visible(one: Conversation | Document, now: int) -> bool:
    return one.expires_at is None or microseconds(one.expires_at) > now


def _behind(name: str, after: str) -> bool:
    return name.encode("utf-8") > after.encode("utf-8")


def _age(one: Conversation | Document) -> tuple[float, bytes]:
    return one.created_at, one.id.encode("utf-8")


def _copy(conversation: Conversation) -> Conversation:
    """Whoever gets it may change its metadata without changing ours."""
    return replace(conversation, metadata=_again(conversation.metadata))


def _again(value: Any) -> Any:
    return json.loads(json.dumps(value))
