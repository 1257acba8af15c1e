"""Whom a row is about, the vectors of messages, indexes by person and by end, settings of tenants, the audit trail.

Each part is made only if it is missing: MySQL keeps what a killed migration had made.
"""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, inspect
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

_NAME = LargeBinary(255).with_variant(mysql.VARBINARY(255), "mysql", "mariadb")
_BODY = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_INNODB = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}


def upgrade() -> None:
    _column("plume_conversations", Column("user", _NAME))
    _index("plume_conversations_user", "plume_conversations", "tenant", "user", "created_at", "id")
    _index("plume_conversations_end", "plume_conversations", "expires_at")
    _column("plume_items", Column("vector", _BODY))
    _column("plume_documents", Column("user", _NAME))
    _index("plume_documents_user", "plume_documents", "tenant", "user", "kind", "created_at", "id")
    _index("plume_documents_end", "plume_documents", "expires_at")
    op.create_table(
        "plume_tenants",
        Column("tenant", _NAME, primary_key=True),
        Column("lifetime", BigInteger),
        if_not_exists=True,
        **_INNODB,
    )
    op.create_table(
        "plume_audit",
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("at", BigInteger, nullable=False),
        Column("body", _BODY, nullable=False),
        if_not_exists=True,
        **_INNODB,
    )


def _column(table: str, column: Column[bytes]) -> None:
    if column.name not in {one["name"] for one in inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def _index(name: str, table: str, *columns: str) -> None:
    if name not in {index["name"] for index in inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns)
