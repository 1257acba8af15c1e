"""What is erased is gone from the bytes: files, logs, indexes, statistics, dumps. Other people's are as they were."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sqlite3
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import servers
from plume.memory import open_store
from plume.memory.audit import trail
from plume.memory.rights import Receipt, erase
from plume.memory.store import Store, Tenant
from plume.types import Message
from stores import SERVERS, admin, fresh_database

# Told by nobody else. Long ones among them, for what needs pages of its own.
HEX = "zoé-martin".encode().hex()
WORDS = [b"coquelicot", b"zo\xc3\xa9-martin", b"hortensia", b"bleuet", b"capucine", b"campanule"]


def live(store: Store) -> tuple[Tenant, list[str]]:
    """Two people in one tenant, one of whom will leave."""
    tenant = store.tenant("clinique")
    for user, flower in (("zoé-martin", "coquelicot"), ("bob", "chardon")):
        mark = "hortensia" if flower == "coquelicot" else "ortie"
        for turn in range(20):
            id = tenant.create(f"{mark}-{turn}", metadata={"note": mark.replace("hortensia", "bleuet")}, user=user).id
            said = [Message("user", f"{flower} {turn} " * 50), Message("assistant", flower * 2000)]
            items = tenant.append(id, said, ids=[f"{mark}-q", f"{mark}-a"])
            if turn % 3 == 0:
                tenant.remove(id, [items[0].id])
            tenant.put("response", f"{mark}-{turn}", {"said": flower}, user=user)
    capucine = tenant.create("capucine", user="zoé-martin")
    tenant.append(capucine.id, [Message("user", "campanule")])
    tenant.delete("capucine")
    tenant.put("response", "hortensia-1", {"said": "campanule"}, user="zoé-martin")
    tenant.put("response", "hortensia-1", {"said": "coquelicot"}, user="zoé-martin")
    return tenant, [one.id for one in tenant.conversations(user="bob")]


def found(paths: list[Path]) -> set[bytes]:
    raws = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a server has cleared it away
            raws.append(path.read_bytes())
    return {word for word in WORDS if any(spelt in raw for raw in raws for spelt in spellings(word))}


def spellings(word: bytes) -> list[bytes]:
    """As it is, and as dumps and logs write bytes."""
    return [word, word.hex().encode(), word.hex().upper().encode(), repr(word)[2:-1].encode()]


def check(receipt: Receipt, tenant: Tenant, before: list[Any], after: list[Any]) -> None:
    assert (receipt.removed.conversations, receipt.removed.documents) == (20, 20)
    assert receipt.removed.messages == 40 - 7
    assert not [word for word in WORDS if word in str(receipt).encode()]
    assert after == before
    assert len(tenant.conversations()) == 20


@contextlib.contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else who has the file open."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("SELECT count(*) FROM plume_items").fetchone()
        yield connection


def rows(file: Path) -> list[Any]:
    """Whatever is not hers, byte for byte."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return [
            connection.execute("SELECT * FROM plume_conversations WHERE user = ? ORDER BY id", [b"bob"]).fetchall(),
            connection.execute("SELECT * FROM plume_documents WHERE user = ? ORDER BY id", [b"bob"]).fetchall(),
            connection.execute("SELECT * FROM plume_items WHERE id LIKE 'ortie%' ORDER BY 1, 2, 3").fetchall(),
        ]


def test_no_byte_of_an_erased_person_is_left_in_the_files_of_sqlite(tmp_path: Path) -> None:
    file = tmp_path / "plume.db"
    with open_store(f"sqlite:///{file}") as store:
        tenant, _ = live(store)
        files = list(tmp_path.iterdir())
        assert {path.suffix for path in files} == {".db", ".db-wal", ".db-shm", ".db-lock"}
        assert found(files) == set(WORDS)
        before = rows(file)
        with reading(file):
            receipt = erase(store, "clinique", "zoé-martin")
            assert receipt.left == ()
            assert found(list(tmp_path.iterdir())) == set()
            check(receipt, tenant, before, rows(file))
    assert found(list(tmp_path.iterdir())) == set()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_deleting_overwrites_what_was_in_the_file(tmp_path: Path) -> None:
    """Not only an erasure: once the log has gone into the file, at the latest when it is closed."""
    file = tmp_path / "plume.db"
    with open_store(f"sqlite:///{file}") as store:
        tenant, _ = live(store)
    assert found([file]) >= {b"coquelicot", b"hortensia"}
    with open_store(f"sqlite:///{file}") as store:
        tenant = store.tenant("clinique")
        for one in tenant.conversations(user="zoé-martin"):
            tenant.delete(one.id)
    assert found([file]) <= {b"zo\xc3\xa9-martin", b"hortensia", b"coquelicot"}  # the documents are still there
    with open_store(f"sqlite:///{file}") as store:
        for document in store.tenant("clinique").documents("response", user="zoé-martin"):
            store.tenant("clinique").discard("response", document.id)
    assert found([file]) == set()


def test_a_reader_that_does_not_end_is_reported_and_the_erasure_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plume.memory.sql.connect.SECONDS", 0.1)
    file = tmp_path / "plume.db"
    with open_store(f"sqlite:///{file}") as store:
        live(store)
        with reading(file) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM plume_items").fetchone()
            receipt = erase(store, "clinique", "zoé-martin")
            assert (receipt.removed.conversations, receipt.scrubbed) == (20, False)
            assert "another program reads" in receipt.left[0]
            assert "erase again" in receipt.left[0]
        again = erase(store, "clinique", "zoé-martin")
        assert (again.removed.conversations, again.scrubbed, again.left) == (0, True, ())
        told = [line.entry["conversations"] for line in trail(store, "clinique", "zoé-martin")]
        assert told == [20, 0]
        assert found(list(tmp_path.iterdir())) == set()


def test_an_erasure_while_others_write_and_read_loses_nothing_of_theirs(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'plume.db'}") as store:
        tenant, others = live(store)
        stop, failed = threading.Event(), []

        def work(number: int) -> None:
            turn = 0
            with open_store(f"sqlite:///{tmp_path / 'plume.db'}") as mine:
                while not stop.is_set():
                    one = mine.tenant("clinique")
                    one.append(others[number], [Message("user", f"encore {turn}")])
                    if one.read(others[number], last=1).messages[0].content != f"encore {turn}":
                        failed.append(turn)
                    turn += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        erase(store, "clinique", "zoé-martin")
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed
        assert not tenant.conversations(user="zoé-martin")
        for number in (1, 2):
            said = [message.content for message in tenant.read(others[number]).messages]
            said = [content for content in said if content.startswith("encore")]
            assert said == [f"encore {turn}" for turn in range(len(said))]


# --- servers ----------------------------------------------------------------------------------------


@pytest.fixture(params=["postgresql", "mysql"])
def database(request: pytest.FixtureRequest, started: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    with fresh_database(started(request.param), tmp_path) as url:
        yield url


def table_rows(run: Callable[[str], Any], url: str) -> list[Any]:
    quote = '"user"' if url.startswith("postgresql") else "`user`"
    wanted = {"conversations": quote, "documents": quote, "items": "id"}
    return [
        run(f"SELECT * FROM plume_{table} WHERE {column} IN ('bob', 'ortie-q', 'ortie-a') ORDER BY 1, 2, 3")  # noqa: S608
        for table, column in wanted.items()
    ]


def dumped(url: str) -> bytes:
    parsed = urllib.parse.urlsplit(url)
    place = ["-h", "127.0.0.1", "-P" if url.startswith("mysql") else "-p", str(parsed.port)]
    if url.startswith("postgresql"):
        command = [servers.program("pg_dump", "postgresql"), *place, "-U", "plume", parsed.path[1:]]
        secret = {"PGPASSWORD": servers.PASSWORD}
    else:
        name = ["--single-transaction", "--skip-ssl", parsed.path[1:]]
        command = [servers.program("mariadb-dump", "mariadb-client"), *place, "-u", "plume", *name]
        secret = {"MYSQL_PWD": servers.PASSWORD}
    done = subprocess.run(command, env={**os.environ, **secret}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table_files(run: Callable[[str], Any], url: str) -> list[Path]:
    if url.startswith("postgresql"):
        home = Path(run("SHOW data_directory")[0][0])
        named = "SELECT pg_relation_filepath(oid) FROM pg_class WHERE relname LIKE 'plume%' AND relkind IN ('r', 'i')"
        toast = (
            "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname LIKE 'plume%' AND reltoastrelid > 0"
        )
        return [home / name for (name,) in run(named.replace("%", "%%")) + run(toast.replace("%", "%%"))]
    home = Path(run("SELECT @@datadir")[0][0]) / urllib.parse.urlsplit(url).path[1:]
    return list(home.glob("plume_*.ibd"))


def test_no_byte_of_an_erased_person_is_left_in_rows_indexes_statistics_and_dump(database: str, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    with open_store(database) as store, admin(database) as run:
        tenant, _ = live(store)
        dump.write_bytes(dumped(database))
        assert found([dump]) >= {b"coquelicot", b"hortensia", b"bleuet", b"zo\xc3\xa9-martin"}
        run("ANALYZE TABLE plume_conversations PERSISTENT FOR ALL" if "mysql" in database else "ANALYZE")
        if database.startswith("postgresql"):
            assert HEX in sampled(run)
        before = table_rows(run, database)
        receipt = erase(store, "clinique", "zoé-martin")
        check(receipt, tenant, before, table_rows(run, database))
        dump.write_bytes(dumped(database))
        assert found([dump]) == set()
        if database.startswith("postgresql"):
            assert HEX not in sampled(run)
        # What the receipt leaves to do, done.
        (left,) = receipt.left
        for statement in left.partition(":")[0].split(", then "):
            run(statement)
        if database.startswith("mysql"):
            run("FLUSH TABLES plume_conversations, plume_items, plume_documents")
        files = table_files(run, database)
        assert len(files) >= 3
        assert found(files) == set()


def sampled(run: Callable[[str], Any]) -> str:
    """What PostgreSQL has noted of the people it saw."""
    columns = "most_common_vals::text, histogram_bounds::text"
    return str(run(f"SELECT {columns} FROM pg_stats WHERE tablename = 'plume_conversations'"))  # noqa: S608


def test_no_byte_of_an_erased_person_is_left_in_the_files_of_redis() -> None:
    with servers.redis(durable=True) as port:
        url = SERVERS["redis"][1].format(port)
        with open_store(url) as store, redis.Redis.from_url(url) as client:
            tenant, _ = live(store)
            home = Path(client.config_get("dir")["dir"])
            log = home / "appendonlydir"
            assert found(list(log.iterdir())) == set(WORDS)
            keep = {key: client.dump(key) for key in client.scan_iter("*ortie*")}
            receipt = erase(store, "clinique", "zoé-martin")
            assert "rewrite" not in str(receipt.left)
            check(receipt, tenant, [], [])
            assert keep == {key: client.dump(key) for key in client.scan_iter("*ortie*")}
            assert len(keep) == 20 * 4
            until_removed(log, lambda: not found(list(log.iterdir())))
            client.save()
            assert (home / "dump.rdb").exists()
            assert found([*log.iterdir(), home / "dump.rdb"]) == set()
            assert not [key for key in client.scan_iter() if found_in(key)]


def until_removed(directory: Path, done: Callable[[], bool]) -> None:
    """Redis deletes an old log in the background; the kernel tells what is deleted from a directory."""
    deleted = threading.Event()
    before = signal.signal(signal.SIGIO, lambda *_: deleted.set())
    watched = os.open(directory, os.O_RDONLY)
    try:
        fcntl.fcntl(watched, fcntl.F_NOTIFY, fcntl.DN_DELETE | fcntl.DN_MULTISHOT)
        while not done():
            assert deleted.wait(30), "nothing more was deleted"
            deleted.clear()
    finally:
        os.close(watched)
        signal.signal(signal.SIGIO, before)


def found_in(key: bytes) -> bool:
    return any(word in urllib.parse.unquote_to_bytes(key) for word in WORDS)
