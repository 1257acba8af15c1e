"""Tables in which PostgreSQL itself searches what was said: by words, and by meaning with pgvector.

A row for each message that can be found. It goes with its message, in the same transaction and whoever deletes that
(ON DELETE CASCADE). Nothing stands in these tables alone: dropped, they are made anew at the next search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import BigInteger, Connection, Float, Select, cast, column, func, literal, or_, select, table, text
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.sql import ColumnElement

from plume.errors import UserError
from plume.memory.recall.places import Entry, Followed, Place, Within
from plume.memory.records import microseconds
from plume.memory.sql.migrate import alone
from plume.memory.sql.tables import SEARCH_TABLES, Name, conversations
from plume.memory.sql.transactions import Transactions
from plume.memory.store import SEARCH_HERE, Conversation, no_search_tables

_PROBE = text("""
    SELECT to_regtype('halfvec') IS NOT NULL AS halves, to_regclass('plume_recall_items') IS NOT NULL AS made,
        has_schema_privilege(current_schema(), 'CREATE')
        AND has_table_privilege('plume_conversations', 'REFERENCES')
        AND has_table_privilege('plume_items', 'REFERENCES') AS may
""")
# No statistics: those of PostgreSQL hold words and vectors, and would keep them when their messages have gone.
_MAKE = (
    text("""
        CREATE TABLE IF NOT EXISTS plume_recall (
            tenant bytea, conversation bytea, head bigint NOT NULL, model bytea,
            PRIMARY KEY (tenant, conversation),
            FOREIGN KEY (tenant, conversation) REFERENCES plume_conversations (tenant, id) ON DELETE CASCADE
        )
    """),
    text("""
        CREATE TABLE IF NOT EXISTS plume_recall_items (
            tenant bytea, conversation bytea, position bigint, item bytea NOT NULL,
            model bytea, embedding halfvec, words tsvector NOT NULL,
            PRIMARY KEY (tenant, conversation, position),
            FOREIGN KEY (tenant, conversation, position)
                REFERENCES plume_items (tenant, conversation, position) ON DELETE CASCADE
        ) WITH (toast_tuple_target = 8160)
    """),
    text("""
        ALTER TABLE plume_recall_items ALTER embedding SET STORAGE EXTERNAL,
            ALTER embedding SET STATISTICS 0, ALTER words SET STATISTICS 0
    """),
)
_ADD = text("""
    INSERT INTO plume_recall_items (tenant, conversation, position, item, model, embedding, words)
    SELECT i.tenant, i.conversation, i.position, i.id, :model,
        CAST(new.embedding AS halfvec), CAST(new.words AS tsvector)
    FROM unnest(CAST(:positions AS bigint[]), CAST(:embeddings AS text[]), CAST(:words AS text[]))
        AS new (position, embedding, words)
    JOIN plume_items i ON i.tenant = :tenant AND i.conversation = :conversation AND i.position = new.position
    ON CONFLICT (tenant, conversation, position)
    DO UPDATE SET model = excluded.model, embedding = excluded.embedding, words = excluded.words
""")
_FOLLOWED = text("""
    INSERT INTO plume_recall (tenant, conversation, head, model) VALUES (:tenant, :conversation, :head, :model)
    ON CONFLICT (tenant, conversation) DO UPDATE SET head = excluded.head, model = excluded.model
""")

_names = [column(name, Name()) for name in ("tenant", "conversation", "item", "model")]
_items = table("plume_recall_items", *_names, column("position", BigInteger()), column("embedding"), column("words")).c
_recall = table("plume_recall", column("tenant", Name()), column("conversation", Name()), column("model", Name()))
_recall.append_column(column("head", BigInteger()))
_PLACE = (_items.conversation, _items.position, _items.item)
_f, _c = _recall.c, conversations.c


class SearchTables:
    """Made when they are missing. Raises UserError, with the reason, where the database cannot search."""

    def __init__(self, transactions: Transactions, sealed: bool) -> None:
        self._transactions, name = transactions, transactions.name
        if transactions.dialect != "postgresql":
            raise no_search_tables(name)
        if sealed:
            raise UserError(f"{name}: the store is sealed, and words and vectors would lie in it plain", SEARCH_HERE)
        found = transactions.rows(_PROBE, {})[0]
        if not found.halves:
            hint = "let the owner of the database run CREATE EXTENSION vector, of pgvector 0.7 or newer"
            raise UserError(f"{name}: the database has no pgvector to search with", hint)
        if not found.made and not found.may:
            hint = f"give it the rights CREATE and REFERENCES; or {SEARCH_HERE}"
            raise UserError(f"{name}: this user may not make the tables {' and '.join(SEARCH_TABLES)}", hint)
        if not found.made:
            transactions.write(self._make)
        self._seen = or_(_c.expires_at.is_(None), _c.expires_at > transactions.statements.now.scalar_subquery())

    def behind(self, tenant: str, model: str | None) -> list[Followed]:
        """The conversations that have moved since they were followed; those with vectors of another model anew."""
        joined = conversations.outerjoin(_recall, (_f.tenant == _c.tenant) & (_f.conversation == _c.id))
        other = [] if model is None else [_f.model.is_distinct_from(model)]
        moved = or_(_f.head.is_(None), _f.head != _c.head, *other)
        wanted = select(_c.id, _f.head, _f.model).select_from(joined).where(_c.tenant == tenant, self._seen, moved)
        return [Followed(row.id, row.head or 0, row.model) for row in self._transactions.rows(wanted, {})]

    def follow(self, tenant: str, read: Conversation, was: Followed, now: Followed, entries: Sequence[Entry]) -> bool:
        """Keep what can be found of a conversation as it was read; of messages that have gone meanwhile, nothing.
        False when somebody else has followed it, or it is another."""
        names: dict[str, Any] = {"tenant": tenant.encode(), "conversation": read.id.encode()}
        model = None if now.model is None else now.model.encode()

        def work(connection: Connection) -> bool:
            mine = select(_c.created_at).where(_c.tenant == tenant, _c.id == read.id).with_for_update()
            if connection.scalar(mine) != microseconds(read.created_at):
                return False
            state = select(_f.head, _f.model).where(_f.tenant == tenant, _f.conversation == read.id)
            head, old = connection.execute(state).one_or_none() or (0, None)
            if (head, old) != (was.head, was.model):
                return False
            if entries:
                connection.execute(_ADD, {**names, "model": model, **_columns(entries)})
            connection.execute(_FOLLOWED, {**names, "model": model, "head": now.head})
            return True

        return self._transactions.write(work)

    def nearest(self, tenant: str, within: Within, model: str, vector: str, limit: int) -> list[tuple[Place, float]]:
        """By the inner product with every vector of this model, exactly; the best first."""
        distance = _items.embedding.op("<#>", return_type=Float())(text("CAST(:vector AS halfvec)"))
        wanted = self._searched(tenant, within, *_PLACE, distance.label("far"))
        ordered = wanted.where(_items.model == model, _items.embedding.is_not(None)).order_by(text("far"), *_PLACE)
        rows = self._transactions.rows(ordered.limit(limit), {"vector": vector})
        return [(Place._make(row[:-1]), -row[-1]) for row in rows]

    def width(self, tenant: str, model: str) -> int | None:
        """Of the vectors of this model; None where there are none."""
        width = select(func.vector_dims(_items.embedding)).where(_items.tenant == tenant, _items.model == model)
        rows = self._transactions.rows(width.where(_items.embedding.is_not(None)).limit(1), {})
        return rows[0][0] if rows else None

    def worded(self, tenant: str, within: Within, words: Sequence[str], limit: int) -> list[Place]:
        """What has one of the words, the best first: PostgreSQL's rank of each word counts the more, the fewer of the
        messages searched have it (as in BM25)."""
        queries = [cast(_quoted(word), TSQUERY) for word in words]
        holds = [_items.words.op("@@")(query) for query in queries]
        counts = self._searched(tenant, within, func.count(), *(func.count().filter(one) for one in holds))
        counted: Sequence[Any] = self._transactions.rows(counts, {})[0]
        score = [
            literal(_rarity(counted[0], having), Float()) * func.ts_rank(_items.words, query, 1)
            for query, having in zip(queries, counted[1:], strict=True)
            if having
        ]
        if not score:
            return []
        found = self._searched(tenant, within, *_PLACE)
        any_word = cast(" | ".join(map(_quoted, words)), TSQUERY)
        ordered = found.where(_items.words.op("@@")(any_word)).order_by(reduce(add, score).desc(), *_PLACE)
        return [Place._make(row) for row in self._transactions.rows(ordered.limit(limit), {})]

    def _make(self, connection: Connection) -> None:
        with alone(connection, self._transactions.name):
            for statement in _MAKE:
                connection.execute(statement)

    def _searched(self, tenant: str, within: Within, *columns: ColumnElement[Any]) -> Select[Any]:
        joined = (_c.tenant == _items.tenant) & (_c.id == _items.conversation)
        wanted = select(*columns).join(conversations, joined).where(_items.tenant == tenant, self._seen)
        if within.conversation is not None:
            wanted = wanted.where(_items.conversation == within.conversation)
        if within.user is not None:
            wanted = wanted.where(_c.user == within.user)
        return wanted if within.before is None else wanted.where(_items.position < within.before)


def drop_search_tables(transactions: Transactions) -> None:
    """Of a store that is sealed now: what they hold is plain."""
    if transactions.dialect == "postgresql" and transactions.rows(_PROBE, {})[0].made:
        transactions.write(lambda connection: connection.execute(text(f"DROP TABLE {', '.join(SEARCH_TABLES)}")))


def _columns(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    return {
        "positions": [entry.position for entry in entries],
        "embeddings": [entry.embedding for entry in entries],
        "words": [_vector(entry.words) for entry in entries],
    }


def _vector(words: Sequence[str]) -> str:
    """As PostgreSQL reads a tsvector: each word with its place, which it gathers itself."""
    return " ".join(f"{_quoted(word)}:{place}" for place, word in enumerate(words, 1))


def _rarity(messages: int, having: int) -> float:
    return math.log(1 + (messages - having + 0.5) / (having + 0.5))


def _quoted(word: str) -> str:
    return f"'{word}'"  # letters and digits alone: see recall/words.py
