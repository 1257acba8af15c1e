"""The rows of one tenant on Redis as they lie there.

The entries of a stream cannot be changed. So a run writes a second stream beside it, which takes the first one's place
at the end, if the conversation is still what was copied; a stream that a killed run left goes away by itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import islice
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from urllib.parse import quote

import redis

from plume.errors import PlumeError
from plume.memory.rows import STEP, Change, RawConversation, RawDocument, RawMessage

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", str, tuple[str, str])

_SECONDS = 600  # that a copy lives when nobody goes on with it
_REPLACE = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
"""
# KEYS: the conversation, its messages, the copy. ARGV: when the conversation was made; positions and bodies in turns.
_COPY = f"""
if redis.call('HGET', KEYS[1], 'created_at') ~= ARGV[1] then return end
for i = 2, #ARGV, 2 do
  local place = ARGV[i] .. '-1'
  local row = redis.call('XRANGE', KEYS[2], place, place)[1]
  if row then
    redis.call('XADD', KEYS[3], place, 'id', row[2][2], 'at', row[2][4], 'body', ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[3], {_SECONDS})
"""
# All that was there is in the copy. It is what is there now if it has as many entries and ends with the same.
_FINISH = """
local function last(stream)
  local row = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  return row and row[1]
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[3])
  return 1
end
if redis.call('HGET', KEYS[1], 'created_at') ~= ARGV[1] or last(KEYS[2]) ~= last(KEYS[3])
    or redis.call('XLEN', KEYS[2]) ~= redis.call('XLEN', KEYS[3]) then
  redis.call('DEL', KEYS[3])
  return 0
end
redis.call('PERSIST', KEYS[3])
redis.call('RENAME', KEYS[3], KEYS[2])
return 1
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
    def __init__(self, client: redis.Redis, root: str, failed: Callable[[redis.RedisError], PlumeError]) -> None:
        self._redis, self._root, self._failed = client, root, failed
        self._replace, self._copy, self._end = map(client.register_script, (_REPLACE, _COPY, _FINISH))
        self._conversations: list[str] = []  # as they were when the walk began
        self._documents: list[tuple[str, str]] = []
        self._runs: dict[str, bytes] = {}  # when the conversation of a run was made

    @_told
    def size(self) -> int:
        kinds = [self._key("documents", kind) for kind in self._kinds()]
        counts: list[Any] = [self._redis.zcard(key) for key in (f"{self._root}:conversations", *kinds)]
        return sum(counts)

    @_told
    def conversations(self, after: str | None) -> Sequence[RawConversation]:
        if after is None:
            self._conversations = self._names(f"{self._root}:conversations")
        there = map(self._conversation, _behind(self._conversations, after))
        return list(islice((one for one in there if one is not None), STEP))

    @_told
    def messages(self, id: str, after: int) -> Sequence[RawMessage]:
        rows: Any = self._redis.xrange(self._key("messages", id), f"{after + 1}-0", "+", count=STEP)
        places = [int(place.partition(b"-")[0]) for place, _ in rows]
        vectors: Any = self._redis.hmget(self._key("vectors", id), list(map(str, places))) if places else []
        return [
            RawMessage(place, fields[b"id"].decode("utf-8"), fields[b"body"], vector)
            for place, (_, fields), vector in zip(places, rows, vectors, strict=True)
        ]

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
    def replace_messages(self, id: str, run: str, changes: Sequence[Change]) -> None:
        if run not in self._runs:
            self._runs[run] = self._fields(self._key("conversation", id), "created_at")[0] or b""
        pairs = [part for _, new in changes for part in (new.position, new.body)]
        self._copy(self._streams(id, run), [self._runs[run], *pairs])
        for old, new in changes:
            if old.vector != new.vector:
                self._replace([self._key("vectors", id)], [old.position, old.vector or b"", new.vector or b""])

    @_told
    def finish(self, id: str, run: str) -> bool:
        return bool(self._end(self._streams(id, run), [self._runs.pop(run, b"")]))

    def _streams(self, id: str, run: str) -> list[str]:
        return [self._key("conversation", id), self._key("messages", id), f"{self._key('messages', id)}:{run}"]

    def _kinds(self) -> list[str]:
        return [name.decode("utf-8") for name in cast("set[bytes]", self._redis.smembers(f"{self._root}:kinds"))]

    def _names(self, key: str) -> list[str]:
        return sorted(name.decode("utf-8") for name in cast("list[bytes]", self._redis.zrange(key, 0, -1)))

    def _fields(self, key: str, *names: str) -> list[bytes | None]:
        return cast("list[bytes | None]", self._redis.hmget(key, list(names)))

    def _key(self, part: str, name: str) -> str:
        return f"{self._root}:{part}:{quote(name, safe='')}"

    def _document_key(self, kind: str, id: str) -> str:
        return f"{self._key('document', kind)}:{quote(id, safe='')}"

    def _conversation(self, id: str) -> RawConversation | None:
        body, user = self._fields(self._key("conversation", id), "body", "user")
        return None if body is None else RawConversation(id, _text(user), body)

    def _document(self, name: tuple[str, str]) -> RawDocument | None:
        body, user, revision = self._fields(self._document_key(*name), "body", "user", "revision")
        return None if body is None else RawDocument(*name, int(revision or 0), _text(user), body)


def _behind(names: list[N], after: N | None) -> Iterator[N]:
    return islice(names, 0 if after is None else bisect_right(names, after), None)


def _text(field: bytes | None) -> str | None:
    return field.decode("utf-8") if field else None
