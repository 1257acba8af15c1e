"""The tables of the SQL stores. Every row of a tenant names it first, and so does every index but those
by which the sweep finds what has expired.

Names are kept as the bytes of their UTF-8: equal means equal on every database, whatever its collation, and NUL is a
character like any other. Times are microseconds since 1970. `migrations/` makes these tables.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from plume.memory.store import NAME_BYTES

VERSION_TABLE = "plume_version"  # Alembic's
SEARCH_TABLES = ("plume_recall", "plume_recall_items")  # of PostgreSQL alone: see search_tables.py


_BYTES = LargeBinary(NAME_BYTES).with_variant(mysql.VARBINARY(NAME_BYTES), "mysql", "mariadb")
_BODY = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


class Name(TypeDecorator[str]):
    """A string as its UTF-8."""

    impl = _BYTES
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        return None if value is None else value.encode("utf-8")

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else bytes(value).decode("utf-8")


metadata = MetaData()

conversations = Table(
    "plume_conversations",
    metadata,
    Column("tenant", Name, primary_key=True),
    Column("id", Name, primary_key=True),
    Column("head", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("body", _BODY, nullable=False),
    Column("user", Name),
    Index("plume_conversations_age", "tenant", "created_at", "id"),
    Index("plume_conversations_user", "tenant", "user", "created_at", "id"),
    Index("plume_conversations_end", "expires_at"),
)

items = Table(
    "plume_items",
    metadata,
    Column("tenant", Name, primary_key=True),
    Column("conversation", Name, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Name, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("body", _BODY, nullable=False),
    Column("vector", _BODY),
    Index("plume_items_id", "tenant", "conversation", "id", unique=True),
)

documents = Table(
    "plume_documents",
    metadata,
    Column("tenant", Name, primary_key=True),
    Column("kind", Name, primary_key=True),
    Column("id", Name, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("body", _BODY, nullable=False),
    Column("user", Name),
    Index("plume_documents_age", "tenant", "kind", "created_at", "id"),
    Index("plume_documents_user", "tenant", "user", "kind", "created_at", "id"),
    Index("plume_documents_end", "expires_at"),
)

settings = Table(
    "plume_tenants",
    metadata,
    Column("tenant", Name, primary_key=True),
    Column("lifetime", BigInteger),
)

audit = Table(
    "plume_audit",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("body", _BODY, nullable=False),
)
