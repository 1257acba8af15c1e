"""Brings the tables of an SQL store to the form that this program knows, whoever else tries at the same moment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select, text

from plume.errors import PlumeError, UserError
from plume.memory.sql.connect import SECONDS, Database
from plume.memory.sql.tables import VERSION_TABLE

NEWEST = "0002"
_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32)))
_ADVISORY = 0x706C756D65  # of PostgreSQL: a number that other programs will not choose, "plume"


def migrate(database: Database, name: str) -> None:
    """Raises UserError for tables of a newer Plume, which are left as they are."""
    with database.turn, database.writer.connect() as connection:
        if _current(connection, name) == NEWEST:
            return
        connection.rollback()
        with alone(connection, name):
            if _current(connection, name) != NEWEST:
                upgrade(connection)
            connection.commit()


def _current(connection: Connection, name: str) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    current = connection.scalar(select(_version.c.version_num))
    if current is not None and current > NEWEST:
        hint = "open it with the newer Plume: pip install --upgrade plume-lm"
        raise UserError(f"{name}: the tables are in form {current}, and this Plume knows only {NEWEST}", hint)
    return current


def upgrade(connection: Connection, to: str = "head") -> None:
    """In the transaction that is open, by whoever is alone."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent / "migrations"))

    def steps(current: str, _: MigrationContext) -> Any:
        return script._upgrade_revs(to, current)

    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "fn": steps})
    with Operations.context(context):
        context.run_migrations()


@contextmanager
def alone(connection: Connection, name: str) -> Iterator[None]:
    """Servers are locked by name; an SQLite file is locked by the turn."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY})
        yield
    elif connection.dialect.name == "sqlite":
        yield
    else:
        schema = str(connection.scalar(text("SELECT DATABASE()")))
        lock = {"name": f"plume:{hashlib.sha256(schema.encode()).hexdigest()[:32]}", "seconds": SECONDS}
        if connection.scalar(text("SELECT GET_LOCK(:name, :seconds)"), lock) != 1:
            raise PlumeError(f"{name}: another process has been changing the tables for {SECONDS} s")
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": lock["name"]})
