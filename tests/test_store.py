"""The stores: the published suite on all five against real servers, and what belongs to one store alone."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from filelock import FileLock

import servers
from plume.data.sql import address as sql_address
from plume.errors import PlumeError, UserError
from plume.memory import open_store, storm
from plume.memory.conformance.conftest import keys, persistent, store, tenant, timed  # noqa: F401
from plume.memory.conformance.examples import refusal, said
from plume.memory.conformance.test_lifetime import *  # noqa: F403
from plume.memory.conformance.test_tenants import *  # noqa: F403
from plume.memory.conformance.test_values import *  # noqa: F403
from plume.memory.conformance.test_vectors import *  # noqa: F403
from plume.memory.conformance.test_writers import *  # noqa: F403
from plume.memory.sql import connect, migrate, tables
from plume.memory.store import Store, Tenant
from stores import SECRET, SERVERS, admin, check_first_form, fresh_database

ON_SERVERS = pytest.mark.parametrize("url", list(SERVERS), indirect=True)
ON_SQL_SERVERS = pytest.mark.parametrize("url", ["postgresql", "mysql"], indirect=True)


@pytest.fixture(scope="session", params=["memory", "sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, started: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """One row a store."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('store') / 'plume.db'}"
    return started(request.param)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "été #1?.db"


def address(file: Path) -> str:
    return f"sqlite:///{urllib.parse.quote(str(file))}"


# --- opening ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("plume.db", "names no store"),
        ("mongodb://u:geheim@h/d", "names no store"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////nowhere/plume.db", "no directory /nowhere"),
        ("sqlite:////proc/plume.db", "/proc"),
        ("postgresql://u:geheim@127.0.0.1:1/d", "refused"),
        ("mysql://u:geheim@127.0.0.1:1/d?charset=utf8mb4", "refused"),
        ("redis://u:geheim@127.0.0.1:1/0", "refused"),
        ("redis://u:geheim@127.0.0.1:1/0?password=geheim", "refused"),
        ("postgresql://u:geheim@h:port/d", "not the URL"),
        ("redis://u:geheim@h:port/0", "port"),
        ("mssql://u:geheim@h/d", "names no store"),
        ("mysql://u:geheim@127.0.0.1:1/d?foo=bar", "foo"),
        ("mysql://u:geheim@127.0.0.1:1/d?connect_timeout=abc", "abc"),
        ("postgresql://u:geheim@127.0.0.1:1/d?port=abc", "abc"),
        ("redis://u:geheim@127.0.0.1:1/0?foo=bar", "foo"),
    ],
)
def test_what_cannot_be_opened_is_said_without_the_password(url: str, said: str) -> None:
    kind, message, hint = refusal(lambda: open_store(url))
    assert kind is UserError
    assert said in message
    assert hint
    assert "geheim" not in message + hint


@pytest.mark.parametrize("content", [b"# Readme\n", b"\0" * 5000, "Où est le phare ?\n".encode() * 500])
def test_a_file_of_another_kind_is_refused_and_nothing_made_beside_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "à lire #1.md"
    file.write_bytes(content)
    kind, message, hint = refusal(lambda: open_store(f"sqlite:///{file}"))
    assert (kind, "not a database" in message, bool(hint)) == (UserError, True, True)
    assert (list(tmp_path.iterdir()), file.read_bytes()) == ([file], content)


@ON_SERVERS
def test_no_password_is_shown_whether_it_is_right_or_wrong(url: str, store: Store) -> None:
    wrong = url.replace(SECRET, "falsch%C3%A9")
    kind, message, hint = refusal(lambda: open_store(wrong))
    assert kind is UserError
    for secret in ("falsch", servers.PASSWORD, SECRET):
        assert secret not in f"{message} {hint} {store!r} {store.tenant('a')!r}"
    assert "***" in repr(store)


@pytest.mark.parametrize(
    ("library", "url", "line"),
    [
        ("sqlalchemy", "sqlite:///a.db", "pip install 'plume-lm[sql]'"),
        ("psycopg", "postgresql://u:geheim@h/d", "pip install 'plume-lm[sql]'"),
        ("pymysql", "mysql://u:geheim@h/d", "pip install 'plume-lm[sql]'"),
        ("redis", "redis://:geheim@h/0", "pip install 'plume-lm[redis]'"),
    ],
)
def test_a_missing_driver_is_named_with_the_line_that_installs_it(library: str, url: str, line: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from plume.errors import UserError\nfrom plume.memory import open_store\n"
        f"try:\n    open_store({url!r})\nexcept UserError as error:\n    print(error.message, error.hint, sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    message, hint = done.stdout.strip().split("|")
    assert (f"{library} is missing" in message, hint, "geheim" in message) == (True, line, False)


def test_a_store_that_is_missing_is_a_failure_only_where_it_is_required(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "plume.memory.conformance", "-k", "deleted", "-rs"]
    url = "redis://:geheim@127.0.0.1:1/0"
    running = {}
    for required in ("0", "1"):
        environment = {**os.environ, "PLUME_TEST_STORES": f"memory:,{url}", "PLUME_REQUIRE_SERVICES": required}
        running[required] = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
    outcomes = {}
    for required, process in running.items():
        told, _ = process.communicate()
        outcomes[required] = (process.returncode, "1 passed, 1 skipped" in told, "1 error" in told)
        assert "refused" in told
        assert "geheim" not in told.replace(f"{url}'", "")  # pytest shows the arguments of what failed
    assert outcomes == {"0": (0, True, False), "1": (1, False, True)}


# --- the tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite", "postgresql", "mysql"], indirect=True)
def test_the_migrations_make_the_tables_that_the_statements_expect(url: str, store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    parsed, arguments = sql_address(url, "test")
    engine = sqlalchemy.create_engine(parsed, connect_args=arguments)
    with engine.connect() as connection:
        options = {"version_table": tables.VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata) == []
    engine.dispose()
    script = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert script.get_current_head() == migrate.NEWEST
    assert store.tenant("a").conversations() == ()


@pytest.mark.parametrize("url", ["sqlite", *SERVERS], indirect=True)
def test_what_a_newer_plume_wrote_is_left_alone(url: str, tenant: Tenant) -> None:
    kept = tenant.create()
    if url.startswith("redis"):
        newer, older = "SET plume:form 9999", "SET plume:form 3"
    else:
        newer = "UPDATE plume_version SET version_num = '9999'"
        older = newer.replace("9999", migrate.NEWEST)
    with admin(url) as run:
        run(newer)
        try:
            kind, message, hint = refusal(lambda: open_store(url))
        finally:
            run(older)
    assert (kind, "knows only" in message, "upgrade" in str(hint)) == (UserError, True, True)
    assert tenant.read(kept.id) == kept


@ON_SQL_SERVERS
def test_many_may_make_the_tables_at_once_and_go_on_with_half_of_them(url: str, tmp_path: Path) -> None:
    with fresh_database(url, tmp_path) as fresh:
        openers = [storm.context().Process(target=open_and_leave, args=(fresh,)) for _ in range(4)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
        assert [opener.exitcode for opener in openers] == [0] * 4
        with admin(fresh) as inside:  # as if it had been killed after the first table
            for table in ("plume_version", "plume_items", "plume_documents"):
                inside(f"DROP TABLE {table}")
        open_and_leave(fresh)


@pytest.mark.parametrize("url", ["sqlite", "postgresql", "mysql"], indirect=True)
def test_tables_of_the_first_form_are_brought_up_to_date_without_loss(url: str, tmp_path: Path) -> None:
    with fresh_database(url, tmp_path) as old:
        write_first_form(old)
        for _ in range(2):
            with open_store(old) as store:
                check_first_form(store)


@pytest.mark.parametrize("url", ["sqlite", "postgresql", "mysql"], indirect=True)
def test_a_killed_migration_is_finished_by_the_next(url: str, tmp_path: Path) -> None:
    chance = random.Random(3)
    with fresh_database(url, tmp_path) as old:
        write_first_form(old)
        for _ in range(6):
            opener = storm.context().Process(target=open_only, args=(old,))
            opener.start()
            opener.join(chance.uniform(0.02, 0.5))
            opener.kill()
            opener.join()
        with open_store(old) as store:
            check_first_form(store)


def open_only(url: str) -> None:
    open_store(url).close()


def write_first_form(url: str) -> None:
    """Tables and rows as the first Plume that had a store wrote them."""
    parsed, arguments = sql_address(url, "test")
    engine = sqlalchemy.create_engine(parsed, connect_args=arguments)
    with engine.begin() as connection:
        migrate.upgrade(connection, "0001")
    engine.dispose()
    with admin(url) as run:
        said = '{"v":1,"role":"user","content":"Où ?"}'
        rows = [
            ("plume_conversations", "a", "b", 1, 5000000, 6000000, None, "{}"),
            ("plume_conversations", "a", "c", 0, 5000000, 6000000, 7000000, "{}"),
            ("plume_items", "a", "b", 0, "m", 6000000, said),
            ("plume_documents", "d", "note", "n", 3, 5000000, 6000000, None, "[1]"),
        ]
        for table, *values in rows:
            run(f"INSERT INTO {table} VALUES ({', '.join(literal(value, url) for value in values)})")  # noqa: S608


def literal(value: str | int | None, url: str) -> str:
    if not isinstance(value, str):
        return "NULL" if value is None else str(value)
    text = value.encode().hex()
    return f"decode('{text}', 'hex')" if url.startswith("postgresql") else f"X'{text}'"


def open_and_leave(url: str) -> None:
    with open_store(url) as store:
        one = store.tenant("a")
        one.append(one.create().id, said("a"))


def test_a_message_of_a_newer_form_is_refused_not_misread(file: Path) -> None:
    with open_store(address(file)) as store:
        one = store.tenant("a")
        id = one.create().id
        one.append(id, said("a"))
        for body in (b'{"v":2,"role":"user","content":"a"}', b'{"v":1,"role":"user","content":"a","image":"b"}'):
            with contextlib.closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("UPDATE plume_items SET body = ?", [body])
            kind, message, hint = refusal(lambda: one.read(id))
            assert (kind, "cannot read" in message, "newer" in str(hint)) == (PlumeError, True, True)


# --- what lasts -------------------------------------------------------------------------------------


# Killing a process cannot show that a commit is on disk: what is not synced survives that, too. So syncs are counted.
TURNS = 20


def write_turns(url: str, *prefix: str) -> None:
    """TURNS appends, each of which has to last, by a process of its own."""
    code = (
        "import os; from plume.memory import open_store; from plume.types import Message\n"
        "with open_store(os.environ['URL']) as store:\n"
        "    one = store.tenant('synced')\n    id = one.create().id\n"
        f"    for turn in range({TURNS}): one.append(id, [Message('user', 'a')], at=turn)"
    )
    subprocess.run([*prefix, sys.executable, "-c", code], check=True, env={**os.environ, "URL": url})


def logged_syncs(log: Path) -> int:
    return len(re.findall(r"\bf(?:data)?sync\(", log.read_text(encoding="utf-8")))


def tracer(log: Path, *options: str) -> list[str]:
    return [servers.program("strace", "strace"), *options, "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(log)]


def test_every_commit_to_sqlite_is_synced(file: Path, tmp_path: Path) -> None:
    write_turns(address(file), *tracer(tmp_path / "log"))
    assert logged_syncs(tmp_path / "log") >= TURNS


def test_every_commit_to_redis_is_synced() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o777)  # the server is another user
        log = Path(name) / "log"
        with servers.redis(durable=True, under=tracer(log, "-D")) as port:
            before = logged_syncs(log)
            write_turns(SERVERS["redis"][1].format(port))
            assert logged_syncs(log) - before >= TURNS


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("postgresql", "SELECT wal_sync FROM pg_stat_wal"),
        ("mysql", "SHOW GLOBAL STATUS LIKE 'Innodb_data_fsyncs'"),
    ],
    indirect=["url"],
)
def test_every_commit_to_a_server_is_synced(url: str, query: str) -> None:
    with admin(url) as run:
        before = int(run(query)[0][-1])
        write_turns(url)
        limit = time.monotonic() + 30  # PostgreSQL counts when the writer has gone
        while (after := int(run(query)[0][-1])) - before < TURNS and time.monotonic() < limit:
            run(f"SELECT {'pg_' * url.startswith('postgresql')}sleep(0.05)")
    assert after - before >= TURNS


def test_settings_that_may_lose_messages_are_named(url: str) -> None:
    changes = {
        "postgresql": ("ALTER ROLE plume SET synchronous_commit = off", "ALTER ROLE plume RESET synchronous_commit"),
        "mysql": tuple(f"SET GLOBAL innodb_flush_log_at_trx_commit = {value}" for value in (2, 1)),
        "redis": ("CONFIG SET appendfsync everysec", "CONFIG SET appendfsync always"),
    }
    name = url.partition(":")[0]
    if name not in changes:
        pytest.skip("nobody can change these settings but Plume")
    with admin(url) as run:
        run(changes[name][0])
        try:
            with open_store(url) as store:
                problem = store.durability().problem
        finally:
            run(changes[name][1])
    assert problem is not None
    assert "may lose" in problem
    assert re.search("synchronous_commit is off|at_trx_commit is 2|appendfsync is everysec", problem)


# --- SQLite alone -----------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone_and_read_by_any_sqlite(file: Path) -> None:
    with open_store(address(file)) as store:
        store.tenant("a").create("b")
        assert {path.stat().st_mode & 0o777 for path in file.parent.glob(f"{file.name}*")} == {0o600}
        settings = store.durability().settings
        assert (settings["journal_mode"], settings["synchronous"], settings["mmap_size"]) == ("wal", "2", "0")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT tenant, id FROM plume_conversations").fetchall() == [(b"a", b"b")]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_version_with_the_known_fault_is_recognised() -> None:
    versions = [(3, 6, 23), (3, 7, 0), (3, 51, 2), (3, 51, 3)]
    assert [connect.has_wal_reset_bug(version) for version in versions] == [False, True, True, False]


def test_opening_it_again_takes_no_locks_away(file: Path) -> None:
    """A process that closes the file, and be it only to look at it, loses the locks of all its connections."""
    with open_store(address(file)) as first:
        one = first.tenant("a")
        one.create("b")
        open_and_leave(address(file))
        with storm.writer(address(file), "a", ["b"], 0, 3) as (_, pipe):
            acknowledged = storm.received(pipe)
        storm.append_turn(one, "b", 1, 0, insists=False)
        with open_store(address(file)) as second:
            turns = [*acknowledged, ("b", 1, 0)]
            assert storm.faults(second.tenant("a"), ["b"], turns, complete=True) == []
        assert storm.faults(one, ["b"], turns, complete=True) == []


def test_a_torn_end_of_the_log_costs_the_last_turn_and_no_half(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with open_store(address(file)) as store:
        one = store.tenant("a")
        one.create("b")
        for turn in range(5):
            storm.append_turn(one, "b", 0, turn, insists=False)
        for suffix in ("", "-wal"):  # what a power cut leaves
            shutil.copy(f"{file}{suffix}", f"{copy}{suffix}")
    log = Path(f"{copy}-wal")
    os.truncate(log, log.stat().st_size - 100)
    with open_store(address(copy)) as store:
        one = store.tenant("a")
        assert storm.faults(one, ["b"], [("b", 0, turn) for turn in range(4)], complete=True) == []
        storm.append_turn(one, "b", 0, 4, insists=True)


def test_a_page_that_was_torn_while_the_log_went_into_the_file_is_mended(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with open_store(address(file)) as store:
        one = store.tenant("a")
        one.create("b")
    with open_store(address(file)) as store:
        turns = [("b", 0, turn) for turn in range(5)]
        for _, _, turn in turns:
            storm.append_turn(store.tenant("a"), "b", 0, turn, insists=False)
        for suffix in ("", "-wal"):  # what a power cut leaves
            shutil.copy(f"{file}{suffix}", f"{copy}{suffix}")
    with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(str(file))}?mode=ro", uri=True)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'plume_items'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with copy.open("r+b") as torn:
        torn.seek((root - 1) * size + size // 2)
        torn.write(b"\xa5" * (size // 2))
    with open_store(address(copy)) as store:
        assert storm.faults(store.tenant("a"), ["b"], turns, complete=True) == []
        storm.append_turn(store.tenant("a"), "b", 1, 0, insists=True)
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_copy_made_while_others_write_is_whole(file: Path, tmp_path: Path) -> None:
    with open_store(address(file)) as store, storm.writer(address(file), "a", ["b"], 0, 40) as (_, pipe):
        store.tenant("a").create("b")
        acknowledged = [pipe.recv() for _ in range(5)]
        with (
            contextlib.closing(sqlite3.connect(file)) as source,
            contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
        ):
            source.backup(copy)
        assert len(acknowledged + storm.received(pipe)) == 40
    with open_store(f"sqlite:///{tmp_path / 'copy.db'}") as store:
        assert storm.faults(store.tenant("a"), ["b"], acknowledged, complete=False) == []


def test_a_disk_that_cannot_be_written_is_said_and_the_file_left_as_it_is() -> None:
    """By a user who may only read; to the superuser every file is open."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        file = Path(name) / "plume.db"
        open_and_leave(address(file))
        before = file.read_bytes()
        file.chmod(0o444)
        Path(name).chmod(0o555)
        here, there = storm.context().Pipe(duplex=False)
        reader = storm.context().Process(target=open_as_nobody, args=(address(file), there))
        reader.start()
        there.close()
        kind, message, hint = here.recv()
        reader.join()
        assert (kind, "denied" in message, "rights" in hint) == ("UserError", True, True)
        assert file.read_bytes() == before
        Path(name).chmod(0o755)
        file.chmod(0o644)
        open_and_leave(address(file))


def open_as_nobody(url: str, pipe: Any) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    kind, message, hint = refusal(lambda: open_store(url))
    pipe.send((kind.__name__, message, hint))


def test_a_full_disk_is_an_error_and_loses_nothing(file: Path) -> None:
    here, there = storm.context().Pipe(duplex=False)
    writer = storm.context().Process(target=write_until_full, args=(address(file), there))
    writer.start()
    there.close()
    acknowledged = storm.received(here)
    writer.join()
    assert (writer.exitcode, acknowledged[-1]) == (0, ("PlumeError", 0, 0))
    with open_store(address(file)) as store:
        turns = acknowledged[:-1]
        assert len(turns) > 1
        assert storm.faults(store.tenant("a"), ["b"], turns, complete=True) == []
        storm.append_turn(store.tenant("a"), "b", 1, 0, insists=True)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def write_until_full(url: str, pipe: Any) -> None:
    """No file of this process may grow beyond 300 kB; then the system refuses, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open_store(url) as store:
        one = store.tenant("a")
        one.create("b")
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        turn = 0
        try:
            while True:
                one.append("b", said("x" * 20_000, "y"), ids=[f"q-0-{turn}", f"a-0-{turn}"])
                pipe.send(("b", 0, turn))
                turn += 1
        except PlumeError as error:
            assert one.read("b", last=0).head == 2 * turn
            pipe.send((type(error).__name__, 0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_writer_that_never_ends_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(address(file)):
        monkeypatch.setattr(connect, "SECONDS", 0.05)
        with FileLock(f"{file}-lock"):
            kind, message, hint = refusal(lambda: open_store(address(file)))
    assert (kind, "another writer" in message, "stopped" in str(hint)) == (PlumeError, True, True)


# --- a server that went away ------------------------------------------------------------------------


@ON_SERVERS
def test_connections_that_died_are_replaced(url: str, tenant: Tenant) -> None:
    id = tenant.create().id
    tenant.append(id, said("a"))
    tenant.read(id)
    with admin(url) as run:
        cut_off_others(url, run)
    assert len(tenant.read(id).items) == 1
    tenant.append(id, said("b"), at=1)
    assert [message.content for message in tenant.read(id).messages] == ["a", "b"]


@pytest.mark.parametrize("url", ["sqlite", "postgresql", "mysql"], indirect=True)
@pytest.mark.usefixtures("url")
def test_a_signal_inside_a_statement_leaves_a_store_that_goes_on(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = tenant.create(metadata={"title": "before"}).id
    with monkeypatch.context() as patched:
        patched.setattr("sqlalchemy.engine.default.DefaultDialect.do_execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tenant.update(id, {"title": "broken off"})
    assert tenant.read(id).metadata == {"title": "before"}
    tenant.append(id, said("and on"))
    tenant.update(id, {"title": "after"})
    assert [item.message.content for item in tenant.read(id).items] == ["and on"]


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_however_many_connections_died_an_append_goes_on(url: str, tenant: Tenant) -> None:
    """More than an append tries: each of them waits for a row, so that all are in use at once."""
    id = tenant.create().id
    writers = [threading.Thread(target=tenant.append, args=(id, said(str(number)))) for number in range(7)]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with admin(url) as run, admin(url) as watch:
        run("BEGIN")
        run("SELECT head FROM plume_conversations FOR UPDATE")
        for writer in writers:
            writer.start()
        while watch(waiting)[0][0] < len(writers):
            pass
        run("COMMIT")
        for writer in writers:
            writer.join()
        cut_off_others(url, run)
    tenant.append(id, said("after"), at=len(writers))
    assert tenant.read(id).head == len(writers) + 1


def cut_off_others(url: str, run: Callable[[str], Any]) -> None:
    if url.startswith("postgresql"):
        others = "pid <> pg_backend_pid() AND datname IS NOT NULL"
        run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")  # noqa: S608
    elif url.startswith("redis"):
        run("CLIENT KILL TYPE normal SKIPME yes")
    else:
        others = "id <> CONNECTION_ID() AND db = 'plume'"
        for (number,) in run(f"SELECT id FROM information_schema.processlist WHERE {others}"):  # noqa: S608
            run(f"KILL {number}")
