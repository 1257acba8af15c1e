"""The first tables. Each part is made only if it is missing: MySQL keeps what a killed migration had made."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, inspect
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

_NAME = LargeBinary(255).with_variant(mysql.VARBINARY(255), "mysql", "mariadb")
_BODY = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_INNODB = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}


def upgrade() -> None:
    op.create_table(
        "plume_conversations",
        Column("tenant", _NAME, primary_key=True),
        Column("id", _NAME, primary_key=True),
        Column("head", BigInteger, nullable=False),
        *_times(),
        Column("body", _BODY, nullable=False),
        if_not_exists=True,
        **_INNODB,
    )
    _index("plume_conversations_age", "plume_conversations", "tenant", "created_at", "id")
    op.create_table(
        "plume_items",
        Column("tenant", _NAME, primary_key=True),
        Column("conversation", _NAME, primary_key=True),
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("id", _NAME, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("body", _BODY, nullable=False),
        if_not_exists=True,
        **_INNODB,
    )
    _index("plume_items_id", "plume_items", "tenant", "conversation", "id", unique=True)
    op.create_table(
        "plume_documents",
        Column("tenant", _NAME, primary_key=True),
        Column("kind", _NAME, primary_key=True),
        Column("id", _NAME, primary_key=True),
        Column("revision", BigInteger, nullable=False),
        *_times(),
        Column("body", _BODY, nullable=False),
        if_not_exists=True,
        **_INNODB,
    )
    _index("plume_documents_age", "plume_documents", "tenant", "kind", "created_at", "id")


def _times() -> list[Column[int]]:
    return [
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger),
    ]


def _index(name: str, table: str, *columns: str, unique: bool = False) -> None:
    if name not in {index["name"] for index in inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns, unique=unique)
