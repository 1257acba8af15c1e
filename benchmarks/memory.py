"""Stores against the same two operations written by hand on the same database: append, and read the last 50.

    python benchmarks/memory.py [--messages 1000000] [--operations 200] [--runs 5] [--store redis]...
                                [--langgraph PYTHON]

SQLite in a temporary directory, and PostgreSQL, MariaDB and Redis servers that it starts itself, as the tests do, with
settings that sync every commit on both sides. By hand means: the plain driver, one table of conversations and one of
messages, JSON in a text column, decoded but not checked; on Redis RPUSH and LRANGE. Both sides hold the same number of
messages in conversations of 1000. Prints one JSON line for each store and operation, sides alternating, medians of the
runs in milliseconds for one operation, the largest ratio last.

With the Python of an environment that has langgraph-checkpoint-sqlite and langgraph-checkpoint-postgres, the same
operations by LangGraph's checkpointers on SQLite and PostgreSQL follow, in the same run and with the same settings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pymysql  # type: ignore[import-untyped]
import redis

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import servers
from plume.memory import open_store
from plume.types import Message

SECRET = urllib.parse.quote(servers.PASSWORD, safe="")
LENGTH = 1000  # of a conversation
TEXT = "Où est le phare ? Sur l’îlot, derrière la jetée. " * 4
BODY = json.dumps({"role": "user", "content": TEXT}, ensure_ascii=False)
Others: TypeAlias = "tuple[Checkpointer, Checkpointer] | None"
Side = tuple[Callable[[str], object], Callable[[str], object]]  # append one message, read the last 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--operations", type=int, default=200, help="of each run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--store", action="append", choices=list(STORES), help="only these")
    parser.add_argument("--langgraph", metavar="PYTHON", help="of an environment with LangGraph's checkpointers")
    options = parser.parse_args()
    if not options.langgraph:
        packages = "langgraph-checkpoint-sqlite langgraph-checkpoint-postgres 'psycopg[binary]'"
        told = f"without LangGraph: python -m venv lg && lg/bin/pip install {packages}; then --langgraph lg/bin/python"
        print(told, file=sys.stderr)
    ids, ratios = [f"conversation-{n}" for n in range(max(1, options.messages // LENGTH))], []
    for key in options.store or STORES:
        name, opened = STORES[key]
        with opened(ids, options.langgraph) as (plume, peer, peer_name, checkpointer):
            for place, operation in enumerate(("append", "read the last 50")):
                runs = alternate(plume[place], peer[place], ids, options)
                line = compared(f"{operation}, {name}, {len(ids) * LENGTH} messages", peer_name, runs)
                ratios.append(line)
                print(json.dumps(line), flush=True)
                if checkpointer is not None:
                    runs = alternate(plume[place], checkpointer[place], ids, options)
                    print(json.dumps(compared(line["metric"], "LangGraph's checkpointer", runs)), flush=True)
    print(json.dumps(max(ratios, key=lambda line: float(line["ratio"]))), flush=True)


def alternate(
    plume: Callable[[str], object],
    peer: Callable[[str], object] | Checkpointer,
    ids: list[str],
    options: argparse.Namespace,
) -> list[list[float]]:
    """Milliseconds for one operation: a pair for each run, on conversations drawn alike for both."""
    runs = []
    for number in range(options.runs):
        drawn = random.Random(number).choices(ids, k=options.operations)
        runs.append([timed(side, drawn) for side in (plume, peer)])
    return runs


def timed(operation: Callable[[str], object] | Checkpointer, ids: list[str]) -> float:
    if isinstance(operation, Checkpointer):
        return operation(ids)
    began = time.perf_counter()
    for id in ids:
        operation(id)
    return (time.perf_counter() - began) / len(ids) * 1000


@dataclass(frozen=True, slots=True)
class Checkpointer:
    """One operation of LangGraph's, which times itself in its own process."""

    process: subprocess.Popen[str]
    do: str

    def __call__(self, ids: list[str]) -> float:
        request = {"do": self.do, "ids": ids, "length": LENGTH, "message": json.loads(BODY)}
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the peer has no pipes")
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))


@contextlib.contextmanager
def langgraph(python: str | None, kind: str, place: str, ids: list[str]) -> Iterator[Others]:
    """Its append and its read, once it holds as much as the others; None without its Python."""
    if python is None:
        yield None
        return
    command = [python, str(Path(__file__).with_name("peer_langgraph.py")), kind, place]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        Checkpointer(process, "fill")(ids)
        yield Checkpointer(process, "append"), Checkpointer(process, "read")
        if process.stdin is not None:
            process.stdin.close()


def compared(metric: str, peer_name: str, runs: list[list[float]]) -> dict[str, Any]:
    plume, peer = (statistics.median(run[side] for run in runs) for side in (0, 1))
    line = {"bench": "memory", "metric": metric, "unit": "ms", "plume": plume, "peer": peer, "peer_name": peer_name}
    ratio = statistics.median(one / other for one, other in runs)  # of neighbours: a machine may change its pace
    return {**line, "ratio": ratio, "lower_is_better": True, "runs": runs}


@contextlib.contextmanager
def store(url: str, ids: list[str]) -> Iterator[Side]:
    with open_store(url) as opened:
        tenant = opened.tenant("bench")
        for id in ids:
            tenant.create(id)
            tenant.append(id, [Message("user", TEXT)] * LENGTH)
        yield lambda id: tenant.append(id, [Message("user", TEXT)]), lambda id: tenant.read(id, last=50)


def by_hand(connection: Any, mark: str, ids: list[str], *, begin: str = "", lock: str = "") -> Side:
    """On a connection of the database's own driver; `mark` is how it writes a parameter."""
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE hand_conversations (id VARCHAR(64) PRIMARY KEY, head BIGINT NOT NULL)")
    cursor.execute(
        "CREATE TABLE hand_messages (conversation VARCHAR(64) NOT NULL, position BIGINT NOT NULL, "
        "created_at BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (conversation, position))"
    )
    find, add, move, create, last = (
        statement.replace("?", mark)
        for statement in (
            "SELECT head FROM hand_conversations WHERE id = ?" + lock,  # noqa: S608
            "INSERT INTO hand_messages VALUES (?, ?, ?, ?)",
            "UPDATE hand_conversations SET head = ? WHERE id = ?",
            "INSERT INTO hand_conversations VALUES (?, ?)",
            "SELECT position, created_at, body FROM hand_messages WHERE conversation = ? "
            "ORDER BY position DESC LIMIT 50",
        )
    )

    def start() -> None:
        if begin:
            cursor.execute(begin)

    def append(id: str) -> None:
        start()
        cursor.execute(find, (id,))
        head = cursor.fetchone()[0]
        body = json.dumps({"role": "user", "content": TEXT}, ensure_ascii=False)
        cursor.execute(add, (id, head, time.time_ns(), body))
        cursor.execute(move, (head + 1, id))
        connection.commit()

    def read(id: str) -> list[Any]:
        cursor.execute(last, (id,))
        rows = [(position, moment, json.loads(body)) for position, moment, body in cursor.fetchall()[::-1]]
        connection.commit()
        return rows

    for id in ids:
        start()
        cursor.execute(create, (id, LENGTH))
        cursor.executemany(add, [(id, position, time.time_ns(), BODY) for position in range(LENGTH)])
        connection.commit()
    return append, read


@contextlib.contextmanager
def sqlite(ids: list[str], python: str | None) -> Iterator[tuple[Side, Side, str, Others]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        store(f"sqlite:///{folder}/plume.db", ids) as plume,
        contextlib.closing(sqlite3.connect(f"{folder}/hand.db", isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        hand = by_hand(connection, "?", ids, begin="BEGIN IMMEDIATE")
        with langgraph(python, "sqlite", f"{folder}/langgraph.db", ids) as checkpointer:
            yield plume, hand, "plain SQL, sqlite3", checkpointer


@contextlib.contextmanager
def postgresql(ids: list[str], python: str | None) -> Iterator[tuple[Side, Side, str, Others]]:
    with servers.postgresql(durable=True) as port:
        address = {"host": "127.0.0.1", "port": port, "user": "plume", "password": servers.PASSWORD}
        with (
            store(f"postgresql://plume:{SECRET}@127.0.0.1:{port}/postgres", ids) as plume,
            psycopg.connect(**address, dbname="postgres") as connection,  # type: ignore[arg-type]
        ):
            hand = by_hand(connection, "%s", ids, lock=" FOR UPDATE")
            url = f"postgresql://plume:{SECRET}@127.0.0.1:{port}/postgres"
            with langgraph(python, "postgresql", url, ids) as checkpointer:
                yield plume, hand, "plain SQL, psycopg", checkpointer


@contextlib.contextmanager
def mariadb(ids: list[str], python: str | None) -> Iterator[tuple[Side, Side, str, Others]]:  # noqa: ARG001
    with servers.mariadb(durable=True) as port:
        password = servers.PASSWORD.encode()
        with store(f"mysql://plume:{SECRET}@127.0.0.1:{port}/plume", ids) as plume:
            connection = pymysql.connect(
                host="127.0.0.1", port=port, user="plume", password=password, database="plume", charset="utf8mb4"
            )
            with contextlib.closing(connection):
                yield plume, by_hand(connection, "%s", ids, lock=" FOR UPDATE"), "plain SQL, PyMySQL", None


def entry(id: str) -> str:
    """What a list on Redis has to hold: there are no columns beside it."""
    message = {"id": f"msg_{id}", "created_at": time.time_ns(), "role": "user", "content": TEXT}
    return json.dumps(message, ensure_ascii=False)


@contextlib.contextmanager
def redis_server(ids: list[str], python: str | None) -> Iterator[tuple[Side, Side, str, Others]]:  # noqa: ARG001
    with (
        servers.redis(durable=True) as port,
        store(f"redis://:{SECRET}@127.0.0.1:{port}/0", ids) as plume,
        redis.Redis(port=port, password=servers.PASSWORD) as client,
    ):
        for id in ids:
            client.rpush(f"hand:{id}", *[entry(id) for _ in range(LENGTH)])

        def append(id: str) -> None:
            client.rpush(f"hand:{id}", entry(id))

        def read(id: str) -> list[Any]:
            return [json.loads(body) for body in client.lrange(f"hand:{id}", -50, -1)]

        yield plume, (append, read), "RPUSH and LRANGE, redis-py", None


STORES = {
    "sqlite": ("SQLite", sqlite),
    "postgresql": ("PostgreSQL", postgresql),
    "mariadb": ("MariaDB", mariadb),
    "redis": ("Redis", redis_server),
}


if __name__ == "__main__":
    main()
