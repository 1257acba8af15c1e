"""The store on Redis. Each call is one run of `store.lua`, which Redis does not interrupt.

Keys are `plume:{TENANT}:…` with percent-encoded names, so that an access list can tell tenants apart, and one tenant's
keys lie together in a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from plume.data.sql import safe_name, said
from plume.errors import ConversationChanged, DocumentChanged, PlumeError, UserError
from plume.memory.records import json_bytes, lifetime, message_bytes, messages_of, metadata_bytes, microseconds, seconds
from plume.memory.store import (
    Clock,
    Conversation,
    Document,
    Durability,
    Item,
    bounds,
    checked_name,
    is_name,
    named,
    new_id,
    no_conversation,
    no_document,
    no_item,
    page_size,
    same_message,
    taken,
    unsafe,
)
from plume.types import Message

_FORM = 1  # of the keys
_SECONDS = 30
_SCRIPT = (Path(__file__).parent / "store.lua").read_text(encoding="utf-8")
_READS = {"show", "read", "item", "get", "page"}
_WANTED = {"appendonly": "yes", "appendfsync": "always"}


class RedisStore:
    def __init__(self, url: str, clock: Clock | None = None) -> None:
        """Connects. Raises UserError when that is impossible, or a newer Plume wrote there."""
        self._url, self._name, self._clock = url, safe_name(url), clock
        # The client's own retries could run a script twice: an append would be there twice.
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "health_check_interval": 30}
        try:
            self._redis = redis.Redis.from_url(url, socket_connect_timeout=10, socket_timeout=_SECONDS, **options)
            self._redis.set("plume:form", _FORM, nx=True)
            form = int(cast(bytes, self._redis.get("plume:form")))
        except (redis.RedisError, ValueError, OSError) as error:
            hint = "check that the server runs, and the host, port, user and password"
            raise UserError(f"{self._name}: {said(error, url)}", hint) from None
        if form > _FORM:
            self._redis.close()
            hint = "open it with the newer Plume: pip install --upgrade plume-lm"
            raise UserError(f"{self._name}: the keys are in form {form}, and this Plume knows only {_FORM}", hint)
        self._script = self._redis.register_script(_SCRIPT)

    def __repr__(self) -> str:
        return f"RedisStore({self._name!r})"

    def tenant(self, name: str) -> _Tenant:
        return _Tenant(self, checked_name("tenant", name))

    def durability(self) -> Durability:
        """Redis acknowledges before it has written, unless it is told otherwise."""
        try:
            found = {str(name): str(value) for name, value in self._redis.config_get("append*", "maxmemory*").items()}
        except redis.ResponseError as error:
            return Durability({}, f"the settings cannot be read: {said(error, self._url)}")
        settings = {name: found[name] for name in (*_WANTED, "maxmemory", "maxmemory-policy") if name in found}
        problem = unsafe(settings, _WANTED)
        if found.get("maxmemory", "0") != "0" and found.get("maxmemory-policy") != "noeviction":
            problem = f"when memory is full, messages are thrown away: maxmemory-policy is {found['maxmemory-policy']}"
        return Durability(settings, problem)

    def close(self) -> None:
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, keys: Sequence[str], operation: str, *arguments: str | int | bytes) -> list[Any]:
        """What the script says: a word, then what goes with it. Only what reads is tried a second time."""
        now = "" if self._clock is None else microseconds(self._clock())
        attempts = 2 if operation in _READS else 1
        for attempt in range(attempts):
            try:
                word, *rest = self._script(keys, [operation, now, *arguments])
                return [word.decode(), *rest]
            except redis.RedisError as error:
                if attempt + 1 < attempts and isinstance(error, redis.ConnectionError):
                    continue
                hint = "look whether it was written; an append with ids may simply be repeated"
                raise PlumeError(f"{self._name}: {said(error, self._url)}", hint) from None
        raise AssertionError


class _Tenant:
    def __init__(self, store: RedisStore, name: str) -> None:
        self.name, self._store, self._prefix = name, store, f"plume:{{{quote(name, safe='')}}}"

    def create(
        self, id: str | None = None, *, metadata: Mapping[str, Any] | None = None, ttl: float | None = None
    ) -> Conversation:
        id = new_id("conv") if id is None else checked_name("conversation", id)
        word, *rest = self._on(id, "create", id, metadata_bytes(metadata), lifetime(ttl))
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

    def conversations(self, *, after: str | None = None, limit: int = 100) -> tuple[Conversation, ...]:
        if after is not None:
            self._on(after, "show")
        found = self._page([f"{self._prefix}:conversations"], after, page_size(limit), self._show)
        return tuple(_conversation(id, fields) for id, fields in found)

    def delete(self, id: str) -> None:
        self._on(id, "delete", id)

    def put(self, kind: str, id: str, body: Any, *, at: int | None = None, ttl: float | None = None) -> Document:
        checked_name("kind", kind)
        checked_name("document", id)
        place = "" if at is None else at
        word, *rest = self._to(kind, id, "put", id, json_bytes(body, "document"), place, lifetime(ttl))
        if word == "changed":
            raise DocumentChanged(kind, id, cast(int, at), rest[0])
        return _document(kind, id, rest[0])

    def get(self, kind: str, id: str) -> Document:
        _, fields = self._to(kind, id, "get")
        return _document(kind, id, fields)

    def documents(self, kind: str, *, after: str | None = None, limit: int = 100) -> tuple[Document, ...]:
        size = page_size(limit)
        if not is_name(kind):
            return ()
        if after is not None:
            self.get(kind, after)

        def show(id: str) -> list[Any]:
            return self._store.run(self._document_keys(kind, id), "get")

        found = self._page([self._document_keys(kind, "")[1]], after, size, show)
        return tuple(_document(kind, id, fields) for id, fields in found)

    def discard(self, kind: str, id: str) -> None:
        self._to(kind, id, "discard", id)

    def _on(self, id: str, operation: str, *arguments: str | int | bytes) -> list[Any]:
        if not is_name(id):
            raise no_conversation(id)
        answer = self._store.run(self._keys(id), operation, *arguments)
        if answer[0] == "none":
            raise no_conversation(id)
        return answer

    def _to(self, kind: str, id: str, operation: str, *arguments: str | int | bytes) -> list[Any]:
        if not is_name(kind) or not is_name(id):
            raise no_document(kind, id)
        answer = self._store.run(self._document_keys(kind, id), operation, *arguments)
        if answer[0] == "none":
            raise no_document(kind, id)
        return answer

    def _show(self, id: str) -> list[Any]:
        return self._store.run(self._keys(id), "show")

    def _page(self, keys: list[str], after: str | None, limit: int, show: Any) -> list[tuple[str, list[Any]]]:
        """Up to `limit` that are still visible: what has expired stays in the order until it is swept."""
        found: list[tuple[str, list[Any]]] = []
        last = after or ""
        while len(found) < limit:
            _, names = self._store.run(keys, "page", last, limit - len(found))
            if not names:
                break
            for last in map(bytes.decode, names):
                word, *rest = show(last)
                if word == "ok":
                    found.append((last, rest[0]))
        return found

    def _keys(self, id: str) -> list[str]:
        name = quote(id, safe="")
        parts = [f"{self._prefix}:{part}:{name}" for part in ("conversation", "messages", "positions")]
        return [*parts, f"{self._prefix}:conversations"]

    def _document_keys(self, kind: str, id: str) -> list[str]:
        kind = quote(kind, safe="")
        return [f"{self._prefix}:document:{kind}:{quote(id, safe='')}", f"{self._prefix}:documents:{kind}"]


def _times(created: bytes, updated: bytes, ends: bytes) -> tuple[float, float, float | None]:
    return seconds(int(created)), seconds(int(updated)), seconds(int(ends)) if ends else None


def _conversation(id: str, fields: list[bytes], items: tuple[Item, ...] = ()) -> Conversation:
    head, created, updated, ends, body = fields
    return Conversation(id, int(head), *_times(created, updated, ends), json.loads(body), items)


def _document(kind: str, id: str, fields: list[bytes]) -> Document:
    revision, created, updated, ends, body = fields
    return Document(kind, id, int(revision), *_times(created, updated, ends), json.loads(body))


def _items(packed: Sequence[bytes]) -> list[Item]:
    rows = [row.split(b" ", 3) for row in packed]
    lengths = [int(row[2]) for row in rows]
    messages = messages_of([row[3][length:] for row, length in zip(rows, lengths, strict=True)])
    return [
        Item(rest[:length].decode(), int(place.partition(b"-")[0]), message, seconds(int(moment)))
        for (place, moment, _, rest), length, message in zip(rows, lengths, messages, strict=True)
    ]
