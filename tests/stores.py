"""The database servers of the tests, each started once for all files, and ways around Plume to what is in them."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy

import servers
from plume.data.sql import address as sql_address
from plume.memory.store import Store

SECRET = urllib.parse.quote(servers.PASSWORD, safe="")
SERVERS: dict[str, tuple[Callable[..., contextlib.AbstractContextManager[int]], str]] = {
    "postgresql": (servers.postgresql, f"postgresql://plume:{SECRET}@127.0.0.1:{{}}/postgres"),
    "mysql": (servers.mariadb, f"mysql://plume:{SECRET}@127.0.0.1:{{}}/plume"),
    "redis": (servers.redis, f"redis://:{SECRET}@127.0.0.1:{{}}/0"),
}
PGVECTOR = (servers.pgvector, SERVERS["postgresql"][1])


@pytest.fixture(scope="session")
def started() -> Iterator[Callable[[str], str]]:
    """Starts each server at its first use; `pgvector` is PostgreSQL with that extension to create."""
    urls: dict[str, str] = {}
    with contextlib.ExitStack() as stack:

        def url(name: str) -> str:
            if name not in urls:
                start, address = PGVECTOR if name == "pgvector" else SERVERS[name]
                urls[name] = address.format(stack.enter_context(start(durable=True)))
            return urls[name]

        yield url


@contextlib.contextmanager
def admin(url: str) -> Iterator[Callable[[str], Any]]:
    """Runs statements as the database's own client would."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            yield lambda command: client.execute_command(*command.split())
        return
    parsed, arguments = sql_address(url, "test")
    engine = sqlalchemy.create_engine(parsed, connect_args=arguments, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:

        def run(statement: str) -> Any:
            result = connection.exec_driver_sql(statement)
            return result.all() if result.returns_rows else None

        yield run
    engine.dispose()


@contextlib.contextmanager
def fresh_database(url: str, directory: Path) -> Iterator[str]:
    """An empty database on the same server."""
    if url.startswith("sqlite"):
        yield f"sqlite:///{directory / 'fresh.db'}"
        return
    name = f"plume_{os.urandom(4).hex()}"
    with admin(url) as run:
        run(f"CREATE DATABASE {name}")
        yield url.rpartition("/")[0] + f"/{name}"
        run(f"DROP DATABASE {name}")


def check_first_form(store: Store) -> None:
    """Is in it what the tests write in the form of the first stores, and does it go on?"""
    one, other = store.tenant("a"), store.tenant("d")
    read = one.read("b")
    assert [(item.id, item.position, item.message.content, item.created_at) for item in read.items] == [
        ("m", 0, "Où ?", 6.0)
    ]
    assert (read.head, read.created_at, read.updated_at, read.expires_at, read.user) == (1, 5.0, 6.0, None, None)
    assert one.conversations() == (one.read("b", last=0),)
    note = other.get("note", "n")
    assert (note.revision, note.body, note.user, note.created_at) == (3, [1], None, 5.0)
    assert (store.tenants(), other.kinds()) == (("a", "d"), ("note",))
    mine = one.create(user="zoé").id
    assert [found.id for found in one.conversations(user="zoé")] == [mine]
    one.delete(mine)
