"""What a database still holds of rows that were deleted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect

from plume.errors import PlumeError
from plume.memory.sql.connect import Database
from plume.memory.sql.tables import SEARCH_TABLES

_POSTGRESQL = (
    "VACUUM FULL {tables}, then CHECKPOINT: VACUUM has made the space of the "
    "deleted rows free, without overwriting it; the write-ahead log keeps them until its segments are recycled, an "
    "archive of it and backups as long as you keep them"
)
_MYSQL = (
    "OPTIMIZE TABLE plume_conversations, plume_items, plume_documents: the space of the deleted rows is free, but not "
    "overwritten; the binary log keeps them until it expires or you PURGE BINARY LOGS, backups as long as you keep "
    "them"
)


def scrub(database: Database, name: str) -> tuple[str, ...]:
    """SQLite writes the file anew and empties its log; PostgreSQL frees the space, and samples its columns anew, for
    statistics hold values."""
    if database.reader.dialect.name == "sqlite":
        with database.turn, database.writer.connect() as connection:
            opened: Any = connection.connection.dbapi_connection
            opened.execute("VACUUM")
            busy, _, _ = opened.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            hint = "look for a program that has been reading for a while, and erase again"
            raise PlumeError(f"{name}: another program reads, so the log could not be emptied", hint)
        return ()
    if database.reader.dialect.name != "postgresql":
        return (_MYSQL,)
    with database.reader.connect() as connection:
        made = [table for table in SEARCH_TABLES if inspect(connection).has_table(table)]
        tables = ", ".join(["plume_conversations", "plume_items", "plume_documents", *made])
        connection.exec_driver_sql(f"VACUUM (ANALYZE) {tables}")
    return (_POSTGRESQL.format(tables=tables),)
