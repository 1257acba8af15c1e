"""One tenant on Redis."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from plume.errors import ConversationChanged, DocumentChanged, PlumeError, shown
from plume.memory.bodies import Bodies
from plume.memory.records import json_bytes, lifetime, message_bytes, metadata_bytes, microseconds, seconds
from plume.memory.redis.entries import entry_of, unpacked
from plume.memory.redis.keys import Held, Keys, Runs, Told, ahead, keys_of, patience, user_of
from plume.memory.sealing.seal import settled
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


class RedisTenant:
    def __init__(self, store: Runs, bodies: Bodies) -> None:
        self.name, self._bodies, self._keys = bodies.tenant, bodies, Keys(store, bodies)
        self._run = partial(store.run, bodies.tenant)

    def create(
        self,
        id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Conversation:
        id = new_id("conv") if id is None else checked_name("conversation", id)
        body, whose = metadata_bytes(metadata), checked_user(user)

        held = self._keys.held(whose)
        for _ in patience():
            sealed = self._bodies.sealed_metadata(keys_of(held), whose, id, body)
            word, *rest = self._on(id, "create", sealed, lifetime=lifetime(ttl), user=whose or "", held=held)
            if word != "keys":
                break
            held = self._keys.held(whose, anew=True)
        if word == "taken":
            raise taken(id)
        return self._conversation(id, rest[0])

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

        def read() -> Conversation:
            _, fields, rows = self._on(id, "read", low=low, high=high, order=order, limit=limit)
            return self._conversation(id, fields, tuple(self._items(id, rows)))

        return settled(read)

    def item(self, id: str, item: str) -> Item:
        def read() -> Item:
            word, *rest = self._on(id, "item", item=item if is_name(item) else "")
            if word != "ok":
                raise no_item(id, item)
            return self._items(id, rest[0])[0]

        return settled(read)

    def append(
        self, id: str, messages: Sequence[Message], *, at: int | None = None, ids: Sequence[str] | None = None
    ) -> tuple[Item, ...]:
        names, bodies = named(messages, ids), [message_bytes(message) for message in messages]
        if not messages:
            self._on(id, "show")
            return ()
        known: dict[str, Item] = {}
        (held, head), width = self._held_of(id), 1
        named_bodies = list(zip(names, bodies, strict=True))
        for _ in patience():
            sealed = self._sealed(id, held, range(head, head + width), named_bodies, known)
            told = _said(at=at, compared=len(known), sealed_for=None if held is None else head)
            word, *rest = self._on(id, "append", *sealed, names=names, **told, held=held)
            if word == "known":
                known = self._compared(id, rest[0], zip(names, messages, strict=True))
                if len(known) == len(names):
                    break
            elif word == "keys":
                held, head = self._held_of(id, anew=True)
            elif word == "moved":
                head, width = rest[0], ahead(width, sum(map(len, bodies)))
            else:
                break
        if word == "changed":
            raise ConversationChanged(id, cast(int, at), rest[0])
        if word == "ok":
            first, moment = rest[0], seconds(int(rest[1]))
            new = [(name, message) for name, message in zip(names, messages, strict=True) if name not in known]
            known |= {name: Item(name, place, message, moment) for place, (name, message) in enumerate(new, first)}
        return tuple(known[name] for name in names)

    def remove(self, id: str, items: Sequence[str]) -> Conversation:
        names = list(dict.fromkeys(items))
        word, *rest = self._on(id, "remove", items=[name if is_name(name) else "" for name in names])
        if word != "ok":
            raise no_item(id, names[rest[0]])
        return self._conversation(id, rest[0])

    def update(self, id: str, metadata: Mapping[str, Any]) -> Conversation:
        body = metadata_bytes(metadata)

        held, _ = self._held_of(id)
        for _ in patience():
            sealed = self._bodies.sealed_metadata(keys_of(held), user_of(held), id, body)
            word, *rest = self._on(id, "update", sealed, held=held)
            if word != "keys":
                break
            held, _ = self._held_of(id, anew=True)
        return self._conversation(id, rest[0])

    def conversations(
        self, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Conversation, ...]:
        if after is not None:
            self._on(after, "show")

        def show(id: str) -> list[Any]:
            return self._run("show", id=id)

        def read() -> tuple[Conversation, ...]:
            found = self._page("", user, after, page_size(limit), show)
            return tuple(self._conversation(id, fields) for id, fields in found)

        return settled(read)

    def delete(self, id: str) -> None:
        self._on(id, "delete")

    def index(self, conversation: Conversation, vectors: Mapping[int, bytes]) -> None:
        id, held = conversation.id, self._held_of(conversation.id)[0]
        vectors = {place: raw for place, raw in vectors.items() if 0 <= place < conversation.head}
        for _ in patience():
            sealed = self._bodies.sealed_vectors(keys_of(held), user_of(held), id, vectors)
            created = microseconds(conversation.created_at)
            word, *_ = self._on(id, "index", *sealed.values(), created=created, places=list(sealed), held=held)
            if word != "keys":
                break
            held, _ = self._held_of(id, anew=True)

    def vectors(self, id: str, *, after: int | None = None) -> dict[int, bytes]:
        low, _, _ = bounds(after, None, None, None)

        def read() -> dict[int, bytes]:
            _, found = self._on(id, "vectors", low=low)
            raws = {int(place): raw for place, raw in sorted(zip(found[::2], found[1::2], strict=True), key=_place)}
            return self._bodies.vectors(id, raws)

        return settled(read)

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
        raw, whose = json_bytes(body, "document"), checked_user(user)
        told = _said(at=at, lifetime=lifetime(ttl), user=whose or "")
        held, revision = self._keys.held(whose), (at or 0) + 1
        for _ in patience():
            sealed = self._bodies.sealed_document(keys_of(held), whose, kind, id, revision, raw)
            if held is not None:
                told["sealed_for"] = revision
            word, *rest = self._to(kind, id, "put", sealed, **told, held=held)
            if word == "keys":
                held = self._keys.held(whose, anew=True)
            elif word == "moved":
                revision = rest[0] + 1
            else:
                break
        if word == "changed":
            raise DocumentChanged(kind, id, cast(int, at), rest[0])
        return self._document(kind, id, rest[0])

    def get(self, kind: str, id: str) -> Document:
        return settled(lambda: self._document(kind, id, self._to(kind, id, "get")[1]))

    def documents(
        self, kind: str, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Document, ...]:
        size = page_size(limit)
        if not is_name(kind):
            return ()
        if after is not None:
            self.get(kind, after)

        def show(id: str) -> list[Any]:
            return self._run("get", kind=kind, id=id)

        def read() -> tuple[Document, ...]:
            found = self._page(kind, user, after, size, show)
            return tuple(self._document(kind, id, fields) for id, fields in found)

        return settled(read)

    def kinds(self) -> tuple[str, ...]:
        _, names = self._run("kinds")
        return tuple(name.decode("utf-8") for name in sorted(names))

    def discard(self, kind: str, id: str) -> None:
        self._to(kind, id, "discard")

    def lifetime(self) -> float | None:
        _, length = self._run("lifetime")
        return seconds(int(length)) if length else None

    def set_lifetime(self, ttl: float | None) -> None:
        self._run("set_lifetime", lifetime=lifetime(ttl))

    def erase(self, user: str | None = None) -> Counts:
        removed = Counts()
        if user is not None and not is_name(user):
            return removed
        while found := counted(self._run("erase", user=user or "", limit=BATCH)):
            removed += found
        return removed

    def _on(self, id: str, operation: str, *bodies: bytes, held: Held | None = None, **told: Told) -> list[Any]:
        if not is_name(id):
            raise no_conversation(id)
        answer = self._run(operation, *bodies, id=id, **told, held=held)
        if answer[0] == "none":
            raise no_conversation(id)
        if answer[0] == "damaged":
            hint = "restore it from a backup: something but Plume has changed its keys on Redis"
            raise PlumeError(f"conversation {shown(id)} has not as many messages as its head says", hint)
        return answer

    def _to(
        self, kind: str, id: str, operation: str, *bodies: bytes, held: Held | None = None, **told: Told
    ) -> list[Any]:
        if not is_name(kind) or not is_name(id):
            raise no_document(kind, id)
        answer = self._run(operation, *bodies, kind=kind, id=id, **told, held=held)
        if answer[0] == "none":
            raise no_document(kind, id)
        return answer

    # --- sealing: the script says when the keys or the place are not those that a body was sealed for

    def _held_of(self, id: str, *, anew: bool = False) -> tuple[Held | None, int]:
        """The keys of the person whom a conversation is about, and its head; nothing where nothing is sealed."""
        if not self._bodies.sealing.active:
            return None, 0
        _, (head, *_, user) = self._on(id, "show")
        return self._keys.held(_text(user), anew=anew), int(head)

    def _sealed(
        self,
        id: str,
        held: Held | None,
        heads: Sequence[int],
        named: Sequence[tuple[str, bytes]],
        known: Container[str],
    ) -> list[bytes]:
        """The bodies for each head that there may be by now; of what is known, nothing."""
        if held is None:
            return [b"" if name in known else body for name, body in named]
        new, bodies = [(name, body) for name, body in named if name not in known], list[bytes]()
        for head in heads:
            placed = [(place, name, body) for place, (name, body) in enumerate(new, head)]
            sealed = self._bodies.sealed_messages(keys_of(held), user_of(held), id, placed)
            ready = {name: raw for (_, name, _), raw in zip(placed, sealed, strict=True)}
            bodies += [ready.get(name, b"") for name, _ in named]
        return bodies

    def _compared(self, id: str, rows: Sequence[bytes], named: Iterable[tuple[str, Message]]) -> dict[str, Item]:
        known = {item.id: item for item in self._items(id, rows)}
        for name, message in named:
            if name in known:
                same_message(known[name], message)
        return known

    def _items(self, id: str, packed: Sequence[bytes]) -> list[Item]:
        rows = sorted(map(entry_of, unpacked(packed)))
        messages = self._bodies.messages(id, [(place, name, raw) for place, name, _, raw in rows])
        return [
            Item(name, place, message, seconds(moment))
            for (place, name, moment, _), message in zip(rows, messages, strict=True)
        ]

    def _conversation(self, id: str, fields: list[bytes], items: tuple[Item, ...] = ()) -> Conversation:
        head, created, updated, ends, body, field = fields
        user = _text(field)
        metadata = self._bodies.metadata(id, user, body)
        return Conversation(id, int(head), *_times(created, updated, ends), metadata, user, items)

    def _document(self, kind: str, id: str, fields: list[bytes]) -> Document:
        number, created, updated, ends, raw, field = fields
        revision, user = int(number), _text(field)
        body = self._bodies.document(kind, id, revision, user, raw)
        return Document(kind, id, revision, *_times(created, updated, ends), body, user)

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
            _, names = self._run("page", kind=kind, user=user or "", after=last, limit=limit - len(found))
            if not names:
                break
            for last in map(bytes.decode, names):
                word, *rest = show(last)
                if word == "ok":
                    found.append((last, rest[0]))
        return found


def _said(**told: Told | None) -> dict[str, Told]:
    """Without what is None."""
    return {name: value for name, value in told.items() if value is not None}


def _place(pair: tuple[bytes, bytes]) -> int:
    return int(pair[0])


def counted(answer: list[Any]) -> Counts:
    return Counts(*answer[1:])


def _times(created: bytes, updated: bytes, ends: bytes) -> tuple[float, float, float | None]:
    return seconds(int(created)), seconds(int(updated)), seconds(int(ends)) if ends else None


def _text(field: bytes | None) -> str | None:
    return field.decode("utf-8") if field else None
