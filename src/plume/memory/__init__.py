"""Conversations that persist: `open_store` gives the store that a URL names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plume.data.sql import safe_name
from plume.errors import UserError
from plume.memory.store import Clock, Store

if TYPE_CHECKING:
    from plume.memory.sealing.master import MasterKey

_SQL = re.compile(r"(?i)(sqlite|postgres(ql)?|mysql|mariadb)(\+\w+)?://")
_REDIS = re.compile(r"(?i)(redis|rediss|unix)://")


def open_store(url: str, *, clock: Clock | None = None, keys: Sequence[MasterKey] = ()) -> Store:
    """`memory:`, `sqlite:///FILE`, `postgresql://…`, `mysql://…`, `mariadb://…` or `redis://…`.

    `clock` gives seconds since 1970; without one it is the server's, so that several programs agree. With
    `keys` everything is sealed (see `plume.memory.sealing.master`). Raises UserError for another URL, a missing driver,
    a database that cannot be used as it is, and keys that do not open it.
    """
    try:
        if _SQL.match(url):
            from plume.memory.sql.store import SQLStore

            return SQLStore(url, clock, keys)
        if _REDIS.match(url):
            from plume.memory.redis.store import RedisStore

            return RedisStore(url, clock, keys)
    except ModuleNotFoundError as error:
        extra = "redis" if error.name == "redis" else "sql"
        raise UserError(
            f"{safe_name(url)}: the library {error.name} is missing", f"pip install 'plume-lm[{extra}]'"
        ) from None
    if url in ("memory:", "memory://"):
        from plume.memory.in_memory.store import InMemoryStore

        return InMemoryStore(clock, keys)
    hint = "write memory:, sqlite:///FILE, postgresql://…, mysql://… or redis://…"
    raise UserError(f"{safe_name(url)} names no store", hint)
