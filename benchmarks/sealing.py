"""A sealed store against the same store unsealed: append one message, and read the last 50.

    python benchmarks/sealing.py [--messages 20000] [--operations 200] [--runs 5] [--store sqlite]...

SQLite in a temporary directory, and PostgreSQL, MariaDB and Redis servers that it starts itself, as the tests do, with
settings that sync every commit. Both sides hold the same messages in conversations of 1000, in databases of their own
on the same server. Prints one JSON line for each store and operation, sides alternating, medians of the runs in
milliseconds for one operation, the largest ratio last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
import sqlalchemy

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import memory
import servers
from plume.data.sql import address
from plume.memory import open_store
from plume.memory.sealing.master import master_key
from plume.types import Message

KEYS = (master_key(secrets.token_bytes(32)),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--operations", type=int, default=200, help="of each run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--store", action="append", choices=list(STORES), help="only these")
    options = parser.parse_args()
    ids, lines = [f"conversation-{n}" for n in range(max(1, options.messages // memory.LENGTH))], []
    for name in options.store or STORES:
        with STORES[name]() as urls, contextlib.ExitStack() as stack:
            plain, sealed = (
                stack.enter_context(store(url, keys, ids)) for url, keys in zip(urls, ((), KEYS), strict=True)
            )
            for place, operation in enumerate(("append", "read the last 50")):
                runs = memory.alternate(sealed[place], plain[place], ids, options)
                lines.append(compared(f"{operation}, {name}, {len(ids) * memory.LENGTH} messages", runs))
                print(json.dumps(lines[-1]), flush=True)
    print(json.dumps(max(lines, key=lambda line: float(line["ratio"]))), flush=True)


def compared(metric: str, runs: list[list[float]]) -> dict[str, Any]:
    return {**memory.compared(metric, "the same store, not sealed", runs), "bench": "sealing"}


@contextlib.contextmanager
def store(url: str, keys: Any, ids: list[str]) -> Iterator[memory.Side]:
    with open_store(url, keys=keys) as opened:
        tenant = opened.tenant("bench")
        for id in ids:
            tenant.create(id, user="alice")
            tenant.append(id, [Message("user", memory.TEXT)] * memory.LENGTH)
        yield lambda id: tenant.append(id, [Message("user", memory.TEXT)]), lambda id: tenant.read(id, last=50)


@contextlib.contextmanager
def in_memory() -> Iterator[tuple[str, str]]:
    yield "memory:", "memory:"


@contextlib.contextmanager
def sqlite() -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as name:
        yield f"sqlite:///{name}/plain.db", f"sqlite:///{name}/sealed.db"


@contextlib.contextmanager
def postgresql() -> Iterator[tuple[str, str]]:
    with servers.postgresql(durable=True) as port:
        yield made(f"postgresql://plume:{memory.SECRET}@127.0.0.1:{port}/", "postgres")


@contextlib.contextmanager
def mariadb() -> Iterator[tuple[str, str]]:
    with servers.mariadb(durable=True) as port:
        yield made(f"mysql://plume:{memory.SECRET}@127.0.0.1:{port}/", "plume")


@contextlib.contextmanager
def redis_server() -> Iterator[tuple[str, str]]:
    with servers.redis(durable=True) as port:
        url = f"redis://:{memory.SECRET}@127.0.0.1:{port}/"
        with redis.Redis.from_url(url + "0") as client:
            client.ping()
        yield url + "0", url + "1"


def made(base: str, first: str) -> tuple[str, str]:
    """The database that is there, and a second one."""
    parsed, arguments = address(base + first, "bench")
    engine = sqlalchemy.create_engine(parsed, connect_args=arguments, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE sealed")
    engine.dispose()
    return base + first, base + "sealed"


STORES: dict[str, Callable[[], contextlib.AbstractContextManager[tuple[str, str]]]] = {
    "memory": in_memory,
    "sqlite": sqlite,
    "postgresql": postgresql,
    "mariadb": mariadb,
    "redis": redis_server,
}


if __name__ == "__main__":
    main()
