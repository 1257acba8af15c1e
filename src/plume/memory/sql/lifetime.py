"""What ends on the SQL stores: what has expired, and what is about somebody who leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select

from plume.memory.sql.tables import conversations, documents, items, settings
from plume.memory.sql.transactions import Transactions
from plume.memory.store import VAULT, Counts

_BATCH = 100  # conversations or documents in one transaction
Drop = Callable[[Connection, Sequence[ColumnElement[bool]], int, bool], Counts]


def sweep(transactions: Transactions, limit: int) -> Counts:
    """Rows that another program is sweeping, or writing to, are passed over."""
    removed = Counts()
    for table, drop in _KINDS:
        while (left := limit - removed.conversations - removed.documents) > 0:

            def work(
                connection: Connection, ends: Any = table.c.expires_at, drop: Drop = drop, left: int = left
            ) -> Counts:
                return drop(connection, [ends <= transactions.now(connection)], min(left, _BATCH), True)

            found = transactions.write(work)
            if not found:
                break
            removed += found
    return removed


def erase(transactions: Transactions, tenant: str, user: str | None) -> Counts:
    removed = Counts()
    for table, drop in _KINDS:
        mine = [table.c.tenant == tenant, *([] if user is None else [table.c.user == user])]

        def work(connection: Connection, mine: Any = mine, drop: Drop = drop) -> Counts:
            return drop(connection, mine, _BATCH, False)

        while found := transactions.write(work):
            removed += found
    if user is None:
        own = settings.c.tenant == tenant
        transactions.write(lambda connection: connection.execute(delete(settings).where(own)))
    return removed


def _drop_conversations(
    connection: Connection, which: Sequence[ColumnElement[bool]], limit: int, skip_locked: bool
) -> Counts:
    mine = select(conversations.c.tenant, conversations.c.id).where(*which).limit(limit)
    rows = connection.execute(mine.with_for_update(skip_locked=skip_locked)).all()
    messages = vaults = 0
    for tenant, group in groupby(sorted(rows), key=attrgetter("tenant")):
        ids = [row.id for row in group]
        held = delete(items).where(items.c.tenant == tenant, items.c.conversation.in_(ids))
        messages += connection.execute(held).rowcount
        own = (documents.c.tenant == tenant, documents.c.kind == VAULT, documents.c.id.in_(ids))
        vaults += connection.execute(delete(documents).where(*own)).rowcount
        connection.execute(delete(conversations).where(conversations.c.tenant == tenant, conversations.c.id.in_(ids)))
    return Counts(len(rows), messages, vaults)


def _drop_documents(
    connection: Connection, which: Sequence[ColumnElement[bool]], limit: int, skip_locked: bool
) -> Counts:
    mine = select(documents.c.tenant, documents.c.kind, documents.c.id).where(*which).limit(limit)
    rows = connection.execute(mine.with_for_update(skip_locked=skip_locked)).all()
    for (tenant, kind), group in groupby(sorted(rows), key=attrgetter("tenant", "kind")):
        ids = [row.id for row in group]
        own = (documents.c.tenant == tenant, documents.c.kind == kind, documents.c.id.in_(ids))
        connection.execute(delete(documents).where(*own))
    return Counts(documents=len(rows))


_KINDS: tuple[tuple[Any, Drop], ...] = ((conversations, _drop_conversations), (documents, _drop_documents))
