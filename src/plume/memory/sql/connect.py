"""Connections of the SQL stores: who may write when, which settings make a commit last, what time it is.

Each database has two pools: one for transactions, one for single statements that read.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import lock_descriptor, unlock_descriptor
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.pool import QueuePool, StaticPool
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.expression import literal_column

from plume.data.sql import address, safe_name
from plume.errors import PlumeError, UserError
from plume.memory.sql.prepared import run
from plume.memory.store import Durability, unsafe

SECONDS = 30  # that a writer waits for its turn
_POLL = 0.002  # seconds between two looks at the lock of a file: about half a commit
_INSTALL = "pip install 'plume-lm[sql]'"
_PRAGMAS = (
    "PRAGMA synchronous=FULL",
    "PRAGMA fullfsync=ON",  # macOS keeps what fsync wrote in the disk's cache
    "PRAGMA checkpoint_fullfsync=ON",
    "PRAGMA mmap_size=0",
    "PRAGMA secure_delete=ON",  # what is deleted is overwritten
)
_CACHE = "PRAGMA cache_size=-16000"  # kibibytes: the inner pages of the trees of some million messages
_CLOCKS = {
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))",
}
_CLOCKS["mariadb"] = _CLOCKS["mysql"]


@dataclass(frozen=True, slots=True)
class Database:
    """`turn` is held around every transaction that writes; `now` is the server's clock, None where it is ours."""

    writer: Engine
    reader: Engine
    turn: AbstractContextManager[None]
    now: ColumnElement[int] | None
    durability: Callable[[Connection], Durability]
    only: _Only | None = None

    def begin(self) -> AbstractContextManager[Connection]:
        """A transaction that writes."""
        return self.writer.begin() if self.only is None else self.only

    def close(self) -> None:
        """The last connection to an SQLite file empties its log: that is writing, too."""
        with self.turn:
            self.reader.dispose()
            if self.only is not None:
                self.only.connection.close()
            self.writer.dispose()
        if isinstance(self.turn, _Turns):
            self.turn.close()


def connect(url: str, name: str) -> Database:
    """Raises UserError for a URL that is none and a driver that is missing; nothing is connected yet but SQLite."""
    parsed, arguments = address(url, name)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(_file(parsed, name), name)
    backend = parsed.get_backend_name()
    if backend not in _CLOCKS:
        raise UserError(f"{name}: there is no store for {backend}")
    if backend == "postgresql" and "options" not in parsed.query:
        arguments["options"] = f"-c lock_timeout={SECONDS}s"
    options: dict[str, Any] = {
        "hide_parameters": True,
        "pool_size": 8,
        "max_overflow": 24,
        "pool_reset_on_return": None,
    }
    make = partial(create_engine, parsed, connect_args=arguments, **options)
    try:
        writer = make(isolation_level="READ COMMITTED")
        reader = make(isolation_level="AUTOCOMMIT")
    except ModuleNotFoundError as error:
        raise UserError(f"{name}: the driver {error.name} is missing", _INSTALL) from None
    settings = _postgresql_settings if backend == "postgresql" else _mysql_settings
    return Database(writer, reader, nullcontext(), literal_column(_CLOCKS[backend]), settings)


def sqlite_file(url: str) -> Path | None:
    """The file that an SQLite URL names; None for another database."""
    name = safe_name(url)
    parsed, _ = address(url, name)
    return _file(parsed, name) if parsed.get_backend_name() == "sqlite" else None


# --- SQLite: one file, one writer at a time ---------------------------------------------------------


def _file(parsed: URL, name: str) -> Path:
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise UserError(f"{name} names no file", "write sqlite:///FILE, with four slashes for an absolute path")
    return Path(parsed.database)


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """May two connections that write or checkpoint at once spoil the file? Mended in SQLite 3.51.3."""
    return (3, 7, 0) <= version < (3, 51, 3)


def _sqlite(path: Path, name: str) -> Database:
    """One connection writes. Processes take turns by a lock beside the file, held over commit and checkpoint alike:
    that keeps clear of the WAL-reset bug, and is fairer than SQLite's own waiting."""
    if path.is_dir() or not path.parent.is_dir():
        wrong = f"{path} is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise UserError(f"{name}: {wrong}", "name a file in a directory that exists")
    try:
        _look(path)
        turn = _Turns(_lock(path), name)
        _make(path)
        with turn:
            connection = _open(path, _CACHE)
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{name}: {error}", "check the path, the disk and the rights of the directory") from None
    if mode != ("wal",):
        hint = "put the file on a local disk"
        raise UserError(f"{name}: this disk cannot keep SQLite's write-ahead log", hint)
    ready = [connection]

    def opened() -> sqlite3.Connection:  # anew where a signal in the middle of a statement made SQLAlchemy close it
        return ready.pop() if ready else _open(path, _CACHE)

    engine = create_engine("sqlite://", creator=opened, poolclass=StaticPool, hide_parameters=True)
    writer = engine.execution_options()
    event.listen(writer, "begin", lambda opened: run(opened, "BEGIN IMMEDIATE"))
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None, "hide_parameters": True}
    reader = create_engine(
        "sqlite://", creator=lambda: _open(path, "PRAGMA query_only=ON"), poolclass=QueuePool, **options
    )
    return Database(writer, reader, turn, None, _sqlite_settings, _Only(engine.connect()))


def _look(path: Path) -> None:
    """Raises sqlite3.Error for a file of another kind, before anything is made beside it. SQLite itself looks: it takes
    no lock and leaves no file, and closing gives up no locks (see `_make`)."""
    if path.exists() and not _lock(path).exists():  # else Plume has opened it before
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA schema_version")


def _lock(path: Path) -> Path:
    return Path(f"{path}-lock")


def _make(path: Path) -> None:
    """For its owner alone. One that exists is not touched: closing a file gives up every lock that this process has on
    it, also those of SQLite's connections, and then another process deletes the log under them."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _open(path: Path, *pragmas: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=SECONDS, isolation_level=None, check_same_thread=False)
    for pragma in (*_PRAGMAS, *pragmas):
        connection.execute(pragma)
    return connection


@dataclass(frozen=True, slots=True)
class _Only:
    """A transaction on the one connection that writes: it never goes back to its pool, and SQLAlchemy begins nothing on
    it."""

    connection: Connection

    def __enter__(self) -> Connection:
        self._run("BEGIN IMMEDIATE")
        return self.connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._run("COMMIT")
        else:
            self._rollback()

    def _run(self, sql: str) -> None:
        try:
            run(self.connection, sql)
        except BaseException:
            self._rollback()
            raise

    def _rollback(self) -> None:
        self.connection.rollback()
        self.connection.connection.rollback()


class _Turns:
    """One writer at a time: first among the threads of this process, then among processes."""

    def __init__(self, path: Path, name: str) -> None:
        self._name, self._threads = name, threading.Lock()
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def __enter__(self) -> None:
        limit = time.monotonic() + SECONDS
        if not self._threads.acquire(timeout=SECONDS):
            raise _busy(self._name)
        try:
            while self._file is not None and not lock_descriptor(self._file, blocking=False):
                if time.monotonic() > limit:
                    raise _busy(self._name)
                time.sleep(_POLL)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if self._file is not None:
                unlock_descriptor(self._file)
        finally:
            self._threads.release()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _busy(name: str) -> PlumeError:
    return PlumeError(
        f"{name}: another writer has been at work for {SECONDS} s",
        "look for a process that has stopped while it was writing, and try again",
    )


# --- the settings in force --------------------------------------------------------------------------


def _sqlite_settings(connection: Connection) -> Durability:
    names = {"journal_mode": "wal", "synchronous": "2", "mmap_size": "0"}
    found = {name: str(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0) for name in names}
    note = None
    if has_wal_reset_bug():
        note = (
            f"SQLite {sqlite3.sqlite_version} can spoil a file that two programs write at once (mended in 3.51.3). "
            "Plume's own writers take turns; let no other program write to the file."
        )
    return _judged({**found, "sqlite_version": sqlite3.sqlite_version}, names, note)


def _postgresql_settings(connection: Connection) -> Durability:
    wanted = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    found = {name: str(connection.scalar(text("SELECT current_setting(:name)"), {"name": name})) for name in wanted}
    if found["synchronous_commit"] in ("remote_apply", "local", "remote_write"):  # all of them wait for this disk
        wanted["synchronous_commit"] = found["synchronous_commit"]
    return _judged(found, wanted)


def _mysql_settings(connection: Connection) -> Durability:
    wanted = {"innodb_flush_log_at_trx_commit": "1", "innodb_doublewrite": "ON"}
    rows = connection.execute(text("SHOW GLOBAL VARIABLES LIKE 'innodb\\_%'")).all()
    found = {str(name): str(value) for name, value in rows if name in wanted}
    return _judged(found, wanted)


def _judged(found: dict[str, str], wanted: dict[str, str], note: str | None = None) -> Durability:
    return Durability(found, unsafe(found, wanted), note)
