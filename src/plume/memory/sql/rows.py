"""The rows of one tenant in an SQL store as they lie there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select, update

from plume.memory.rows import STEP, Change, RawConversation, RawDocument, RawMessage
from plume.memory.sql.tables import conversations, documents, items
from plume.memory.sql.transactions import Transactions

_c, _i, _d = conversations.c, items.c, documents.c


class SQLRows:
    def __init__(self, transactions: Transactions, tenant: str) -> None:
        self._transactions, self._tenant = transactions, tenant

    def size(self) -> int:
        counts = [select(func.count()).where(table.c.tenant == self._tenant) for table in (conversations, documents)]
        return sum(int(self._rows(count)[0][0]) for count in counts)

    def conversations(self, after: str | None) -> Sequence[RawConversation]:
        wanted = select(_c.id, _c.user, _c.body).where(_c.tenant == self._tenant, _c.id > (after or ""))
        return [RawConversation(*row) for row in self._rows(wanted.order_by(_c.id).limit(STEP))]

    def messages(self, id: str, after: int) -> Sequence[RawMessage]:
        mine = (_i.tenant == self._tenant, _i.conversation == id, _i.position > after)
        wanted = select(_i.position, _i.id, _i.body, _i.vector).where(*mine).order_by(_i.position).limit(STEP)
        return [RawMessage(*row) for row in self._rows(wanted)]

    def documents(self, after: tuple[str, str] | None) -> Sequence[RawDocument]:
        kind, id = after or ("", "")
        behind = or_(_d.kind > kind, and_(_d.kind == kind, _d.id > id))
        wanted = select(_d.kind, _d.id, _d.revision, _d.user, _d.body).where(_d.tenant == self._tenant, behind)
        return [RawDocument(*row) for row in self._rows(wanted.order_by(_d.kind, _d.id).limit(STEP))]

    def replace_conversation(self, old: RawConversation, body: bytes) -> None:
        mine = (_c.tenant == self._tenant, _c.id == old.id, _c.body == old.body)
        self._write([update(conversations).where(*mine).values(body=body)])

    def replace_document(self, old: RawDocument, body: bytes) -> None:
        mine = (_d.tenant == self._tenant, _d.kind == old.kind, _d.id == old.id, _d.body == old.body)
        self._write([update(documents).where(*mine).values(body=body)])

    def replace_messages(self, id: str, changes: Sequence[Change]) -> None:
        self._write([one for change in changes for one in self._replacing(id, *change)])

    def _replacing(self, id: str, old: RawMessage, new: RawMessage) -> Iterator[Any]:
        mine = update(items).where(_i.tenant == self._tenant, _i.conversation == id, _i.position == old.position)
        if old.body != new.body:
            yield mine.where(_i.body == old.body).values(body=new.body)
        if old.vector != new.vector:
            yield mine.where(_i.vector == old.vector).values(vector=new.vector)

    def _rows(self, statement: Any) -> Sequence[Any]:
        return self._transactions.rows(statement, {})

    def _write(self, statements: Sequence[Any]) -> None:
        def work(connection: Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        if statements:
            self._transactions.write(work)
