"""Conversations that persist: `open_store` gives the store that a URL names."""

from __future__ import annotations

import re

from plume.data.sql import safe_name
from plume.errors import UserError
from plume.memory.store import Clock, Store

_SQL = re.compile(r"(?i)(sqlite|postgres(ql)?|mysql|mariadb)(\+\w+)?://")
_REDIS = re.compile(r"(?i)(redis|rediss|unix)://")


def open_store(url: str, *, clock: Clock | None = None) -> Store:
    """`memory:`, `sqlite:///FILE`, `postgresql://…`, `mysql://…`, `mariadb://…` or `redis://…`.

    `clock` gives seconds since 1970; without one it is the server's, so that several programs agree. Raises UserError
    for another URL, a missing driver, and a database that cannot be used as it is.
    """
    try:
        if _SQL.match(url):
            from plume.memory.sql import SQLStore

            return SQLStore(url, clock)
        if _REDIS.match(url):
            from plume.memory.redis_store import RedisStore

            return RedisStore(url, clock)
    except ModuleNotFoundError as error:
        extra = "redis" if error.name == "redis" else "sql"
        raise UserError(
            f"{safe_name(url)}: the library {error.name} is missing", f"pip install 'plume-lm[{extra}]'"
        ) from None
    if url in ("memory:", "memory://"):
        from plume.memory.in_memory import InMemoryStore

        return InMemoryStore(clock)
    hint = "write memory:, sqlite:///FILE, postgresql://…, mysql://… or redis://…"
    raise UserError(f"{safe_name(url)} names no store", hint)
