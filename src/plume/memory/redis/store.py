"""The store on Redis. Each call is one run of a script in `lua/`, which Redis does not interrupt.

Keys are `plume:{TENANT}:…` with percent-encoded names, so that an access list can tell tenants apart; besides
them there are `plume:form` and `plume:tenants`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Never, Self, cast
from urllib.parse import quote, unquote, urlsplit

import redis
from pydantic import TypeAdapter
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from plume.data.sql import safe_name, said
from plume.errors import PlumeError, UserError
from plume.memory.bodies import bodies_of
from plume.memory.records import json_bytes, microseconds, seconds
from plume.memory.redis.keys import Held, Told
from plume.memory.redis.rows import RedisRows
from plume.memory.redis.tenant import BATCH, RedisTenant, counted
from plume.memory.sealing.master import MasterKey
from plume.memory.sealing.seal import KEPT, PLAIN, Sealing, sealing_of
from plume.memory.store import FAR, Clock, Counts, Durability, Line, checked_name, no_search_tables, page_size, unsafe

_FORM = 3  # of the keys
_INDEXED = 2  # since this form
_AT_ONCE = 1000  # messages of an older form that one call takes over
_SECONDS = 30
_LUA = Path(__file__).parent / "lua"
_TOLD = TypeAdapter(dict[str, Any])
_PARTS = ("common", "conversations", "documents", "upkeep")
_READS = {"show", "read", "vectors", "item", "get", "page", "kinds", "lifetime", "trail"}
_TENANTS = "plume:tenants"
_AUDIT = "plume:audit"  # the tenant whose key the trail is
_REWRITE = "BGREWRITEAOF, when the one under way has ended: the append-only file still holds it"
_SNAPSHOT = "a snapshot (dump.rdb) holds it until the next one is written, a replica's files and backups likewise"
_WANTED = {"appendonly": "yes", "appendfsync": "always"}


class RedisStore:
    def __init__(self, url: str, clock: Clock | None = None, keys: Sequence[MasterKey] = ()) -> None:
        """Connects. Raises UserError when that is impossible, a newer Plume wrote there, or the keys are wrong."""
        self._url, self._name, self._clock = url, safe_name(url), clock
        if not re.fullmatch("/?[0-9]*", urlsplit(url).path):  # which the client would pass over
            raise UserError(f"{self._name} names no database", "Redis counts its databases: write redis://HOST:PORT/0")
        # The client's own retries could run a script twice: an append would be there twice.
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "health_check_interval": 30}
        try:
            self._redis = redis.Redis.from_url(url, socket_connect_timeout=10, socket_timeout=_SECONDS, **options)
            self._redis.set("plume:form", _FORM, nx=True)
            form = int(cast(bytes, self._redis.get("plume:form")))
            self._scripts = {name: self._redis.register_script(text) for name, text in scripts().items()}
            if form < _FORM:
                self._upgrade(form)
        except (redis.RedisError, TypeError, ValueError, OSError) as error:
            hint = "check that the server runs, and host, port, user, password and options of the URL"
            raise UserError(f"{self._name}: {said(error, url)}", hint) from None
        if form > _FORM:
            self._redis.close()
            hint = "open it with the newer Plume: pip install --upgrade plume-lm"
            raise UserError(f"{self._name}: the keys are in form {form}, and this Plume knows only {_FORM}", hint)
        self.keys: dict[str, bytes] = {}
        self.sealing: Sealing = PLAIN
        try:
            self.sealing = sealing_of(self, self._name, keys)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"RedisStore({self._name!r})"

    def tenant(self, name: str) -> RedisTenant:
        return RedisTenant(self, bodies_of(self.sealing, checked_name("tenant", name)))

    def rows(self, tenant: str) -> RedisRows:
        return RedisRows(self._redis, _root(tenant), partial(self.run, tenant), self._failed)

    def tenants(self, *, after: str | None = None, limit: int = 100) -> tuple[str, ...]:
        low = "-" if after is None else b"(" + checked_name("tenant", after).encode("utf-8")
        try:
            found = self._redis.zrangebylex(_TENANTS, low, "+", start=0, num=page_size(limit))
        except redis.RedisError as error:
            raise self._failed(error) from None
        return tuple(name.decode("utf-8") for name in cast("list[bytes]", found))

    def search_tables(self) -> Never:
        raise no_search_tables(self._name)

    def sweep(self, limit: int = 1000) -> Counts:
        left, removed, after = page_size(limit), Counts(), None
        while left > 0 and (names := self.tenants(after=after)):
            after = names[-1]
            for name in names:
                while left > 0 and (found := counted(self.run(name, "sweep", limit=min(left, BATCH)))):
                    removed += found
                    left -= found.conversations + found.documents
        return removed

    def scrub(self) -> tuple[str, ...]:
        """What was deleted is out of memory. The append-only file is written anew, for it still holds what was said."""
        try:
            if self._redis.config_get("appendonly").get("appendonly") != "yes":
                return (_SNAPSHOT,)
            limit = time.monotonic() + _SECONDS
            if self._rewritten(limit):  # one that began before knows nothing of this
                self._redis.bgrewriteaof()
            return (_SNAPSHOT,) if self._rewritten(limit) else (_REWRITE, _SNAPSHOT)
        except redis.ResponseError:
            return (_REWRITE, _SNAPSHOT)
        except redis.RedisError as error:
            raise PlumeError(f"{self._name}: {said(error, self._url)}", "check the server, then erase again") from None

    def _rewritten(self, limit: float) -> bool:
        """Has the append-only file been rewritten before that moment?"""
        while time.monotonic() < limit:
            state = self._redis.info("persistence")
            if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                return True
            time.sleep(0.05)
        return False

    def destroy_keys(self, tenant: str, user: str | None) -> bool:
        return self.sealing.destroy(tenant, user)

    def note(self, entry: Mapping[str, Any]) -> Line:
        body = json_bytes(dict(entry), "audit line")
        _, number, at = self.run(_AUDIT, "note", body)
        return Line(int(number), seconds(int(at)), json.loads(body))

    def trail(self, *, after: int | None = None, limit: int = 100) -> tuple[Line, ...]:
        start, size = min(max(0, after or 0), FAR), page_size(limit)
        _, rows = self.run(_AUDIT, "trail", first=start, last=start + size - 1)
        split = [row.partition(b" ") for row in (rows if size else ())]
        return tuple(
            Line(number, seconds(int(at)), json.loads(body)) for number, (at, _, body) in enumerate(split, start + 1)
        )

    def durability(self) -> Durability:
        """Redis acknowledges before it has written, unless it is told otherwise."""
        try:
            found = {str(name): str(value) for name, value in self._redis.config_get("append*", "maxmemory*").items()}
        except redis.ResponseError as error:
            return Durability({}, f"the settings cannot be read: {said(error, self._url)}")
        except redis.RedisError as error:
            raise self._failed(error) from None
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

    def run(self, tenant: str, operation: str, *bodies: bytes, held: Held | None = None, **told: Told) -> list[Any]:
        """What the script says: a word, then what goes with it. Only what reads is tried a second time."""
        script, keys, belief = self._scripts[operation], [_root(tenant), _TENANTS], b""
        told["tenant"] = tenant
        if self._clock is not None:
            told["now"] = microseconds(self._clock())
        if held is not None:
            keys.append(f"{_root(KEPT)}document:{quote(held.kind, safe='')}:{quote(held.id, safe='')}")
            belief, told["whose"] = held.body, held.user
        arguments = [_TOLD.dump_json(told), belief, *bodies]
        attempts = 2 if operation in _READS else 1
        for attempt in range(attempts):
            try:
                return self._answer(script, keys, arguments)
            except redis.RedisError as error:
                if attempt + 1 < attempts and isinstance(error, redis.ConnectionError):
                    continue
                hint = "look whether it was written; an append with ids may simply be repeated"
                raise PlumeError(f"{self._name}: {said(error, self._url)}", hint) from None
        raise AssertionError

    def _answer(self, script: Script, keys: Sequence[str], arguments: Sequence[bytes]) -> list[Any]:
        try:
            found = self._redis.evalsha(script.sha, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            found = script(keys, arguments)  # loads it; always by this way it takes 20 us more
        word, *rest = cast("list[Any]", found)
        return [word.decode(), *rest]

    def _failed(self, error: redis.RedisError) -> PlumeError:
        return PlumeError(f"{self._name}: {said(error, self._url)}", "check the server, then try again")

    def _upgrade(self, form: int) -> None:
        """Form 1 had no lists of tenants, kinds and ends; until form 2 messages were streams. Whoever else tries at the
        same moment writes the same, and whoever is killed begins again."""
        hint = "let a user who may see all keys of Plume open it once, and nobody write to it meanwhile"
        try:
            self._adopt(form)
        except (redis.RedisError, PlumeError) as error:
            self._redis.close()
            raise UserError(f"{self._name}: it is of an older form: {said(error, self._url)}", hint) from None
        self._redis.set("plume:form", _FORM)

    def _adopt(self, form: int) -> None:
        for key in self._redis.scan_iter("plume:{*}:conversations", count=1000):
            tenant = unquote(key.decode()[len("plume:{") : -len("}:conversations")])
            if form < _INDEXED:
                self.run(tenant, "adopt_conversations")
            for id in cast("list[bytes]", self._redis.zrange(key, 0, -1)):
                while self.run(tenant, "adopt_messages", id=id.decode(), limit=_AT_ONCE)[0] == "more":
                    pass
        for key in self._redis.scan_iter("plume:{*}:documents:*", count=1000) if form < _INDEXED else ():
            tenant, _, kind = key.decode().removeprefix("plume:{").partition("}:documents:")
            self.run(unquote(tenant), "adopt_documents", kind=unquote(kind))


def scripts() -> dict[str, str]:
    """One for each operation: its function, and what that needs of what all have in common."""
    common, *parts = ((_LUA / f"{name}.lua").read_text(encoding="utf-8") for name in _PARTS)
    functions = re.findall(r"^(function run\.(\w+)\(\)\n.*?^end)$", "\n".join(parts), re.MULTILINE | re.DOTALL)
    return {
        name: _with_needed(common.split("\n\n"), f"local run = {{}}\n{function}\nreturn run.{name}()\n")
        for function, name in functions
    }


def _with_needed(blocks: Sequence[str], script: str) -> str:
    for block in reversed(blocks):
        function = re.search(r"^local function (\w+)", block, re.MULTILINE)
        if function is None or re.search(rf"(?<![\w.]){function[1]}\(", script):
            script = f"{block}\n\n{script}"
    return script


def _root(tenant: str) -> str:
    return f"plume:{{{quote(tenant, safe='')}}}:"
