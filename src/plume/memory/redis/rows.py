"""The rows of one tenant on Redis as they lie there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import islice
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from urllib.parse import quote

import redis

from plume.errors import PlumeError
from plume.memory.redis.entries import entry_of
from plume.memory.rows import STEP, Change, RawConversation, RawDocument, RawMessage

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", str, tuple[str, str])

_MOST = 4096  # entries looked at in one step where nothing else is
_REPLACE = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
"""


def _told(method: Callable[Concatenate[RedisRows, P], T]) -> Callable[Concatenate[RedisRows, P], T]:
    """The client's errors in the words of the store."""

    @wraps(method)
    def call(rows: RedisRows, /, *arguments: P.args, **options: P.kwargs) -> T:
        try:
            return method(rows, *arguments, **options)
        except redis.RedisError as error:
            raise rows._failed(error) from None

    return call


class RedisRows:
    def __init__(
        self,
        client: redis.Redis,
        root: str,
        run: Callable[..., list[Any]],
        failed: Callable[[redis.RedisError], PlumeError],
    ) -> None:
        self._redis, self._root, self._run, self._failed = client, root, run, failed
        self._replace = client.register_script(_REPLACE)
        self._conversations: list[str] = []  # as they were when the walk began
        self._documents: list[tuple[str, str]] = []

    @_told
    def size(self) -> int:
        kinds = [self._key("documents", kind) for kind in self._kinds()]
        counts: list[Any] = [self._redis.zcard(key) for key in (f"{self._root}conversations", *kinds)]
        return sum(counts)

    @_told
    def conversations(self, after: str | None) -> Sequence[RawConversation]:
        if after is None:
            self._conversations = self._names(f"{self._root}conversations")
        there = map(self._conversation, _behind(self._conversations, after))
        return list(islice((one for one in there if one is not None), STEP))

    @_told
    def messages(self, id: str, after: int) -> Sequence[RawMessage]:
        rows: list[tuple[int, bytes]] = []
        width = STEP
        while not rows:  # where many were removed
            start = after + 1
            found = cast("list[bytes]", self._redis.lrange(self._key("messages", id), start, after + width))
            if not found:
                return []
            rows = [(place, row) for place, row in enumerate(found, start) if row][:STEP]
            after, width = after + width, min(2 * width, _MOST)
        vectors: Any = self._redis.hmget(self._key("vectors", id), [str(place) for place, _ in rows])
        return [_message(place, row, vector) for (place, row), vector in zip(rows, vectors, strict=True)]

    @_told
    def documents(self, after: tuple[str, str] | None) -> Sequence[RawDocument]:
        if after is None:
            pairs = [(kind, id) for kind in self._kinds() for id in self._names(self._key("documents", kind))]
            self._documents = sorted(pairs)
        there = map(self._document, _behind(self._documents, after))
        return list(islice((one for one in there if one is not None), STEP))

    @_told
    def replace_conversation(self, old: RawConversation, body: bytes) -> None:
        self._replace([self._key("conversation", old.id)], ["body", old.body, body])

    @_told
    def replace_document(self, old: RawDocument, body: bytes) -> None:
        self._replace([self._document_key(old.kind, old.id)], ["body", old.body, body])

    @_told
    def replace_messages(self, id: str, changes: Sequence[Change]) -> None:
        bodies = [body for old, new in changes for body in (old.body, new.body)]
        self._run("reseal", *bodies, id=id, places=[old.position for old, _ in changes])
        for old, new in changes:
            if old.vector != new.vector:
                self._replace([self._key("vectors", id)], [old.position, old.vector or b"", new.vector or b""])

    def _kinds(self) -> list[str]:
        return [name.decode("utf-8") for name in cast("set[bytes]", self._redis.smembers(f"{self._root}kinds"))]

    def _names(self, key: str) -> list[str]:
        return sorted(name.decode("utf-8") for name in cast("list[bytes]", self._redis.zrange(key, 0, -1)))

    def _fields(self, key: str, *names: str) -> list[bytes | None]:
        return cast("list[bytes | None]", self._redis.hmget(key, list(names)))

    def _key(self, part: str, name: str) -> str:
        return f"{self._root}{part}:{quote(name, safe='')}"

    def _document_key(self, kind: str, id: str) -> str:
        return f"{self._key('document', kind)}:{quote(id, safe='')}"

    def _conversation(self, id: str) -> RawConversation | None:
        body, user = self._fields(self._key("conversation", id), "body", "user")
        return None if body is None else RawConversation(id, _text(user), body)

    def _document(self, name: tuple[str, str]) -> RawDocument | None:
        body, user, revision = self._fields(self._document_key(*name), "body", "user", "revision")
        return None if body is None else RawDocument(*name, int(revision or 0), _text(user), body)


def _message(place: int, row: bytes, vector: bytes | None) -> RawMessage:
    """By where it lies, not by where it says that it does: a sealed body opens at its own place alone."""
    _, name, _, body = entry_of(row)
    return RawMessage(place, name, body, vector)


def _behind(names: list[N], after: N | None) -> Iterator[N]:
    return islice(names, 0 if after is None else bisect_right(names, after), None)


def _text(field: bytes | None) -> str | None:
    return field.decode("utf-8") if field else None
