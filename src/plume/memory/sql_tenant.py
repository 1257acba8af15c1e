"""One tenant on SQLite, PostgreSQL, MySQL and MariaDB.

Whoever writes to a conversation first locks its row; so messages get their positions one writer after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, update

from plume.errors import ConversationChanged, DocumentChanged
from plume.memory.records import (
    expiry,
    json_bytes,
    lifetime,
    message_bytes,
    messages_of,
    metadata_bytes,
    microseconds,
    seconds,
)
from plume.memory.sql_lifetime import erase
from plume.memory.statements import Pages
from plume.memory.store import (
    Conversation,
    Counts,
    Document,
    Item,
    bounds,
    checked_name,
    checked_user,
    is_name,
    named,
    new_id,
    no_conversation,
    no_document,
    no_item,
    page_size,
    same_message,
    taken,
)
from plume.memory.tables import conversations, documents, items, settings
from plume.memory.transactions import Transactions
from plume.types import Message

_NAMES = {"id", "item", "kind", "after", "user"}  # of parameters
_BATCH = 500  # names in one IN (...)


class SQLTenant:
    def __init__(self, transactions: Transactions, name: str) -> None:
        self.name, self._transactions = name, transactions
        self._statements = transactions.statements

    def create(
        self,
        id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Conversation:
        id = new_id("conv") if id is None else checked_name("conversation", id)
        body, whose = metadata_bytes(metadata), checked_user(user)

        def work(connection: Connection) -> Conversation:
            old = self._locked(connection, id)
            if old is not None and _visible(old):
                raise taken(id)
            if old is not None:
                self._delete(connection, id)
            start = {**self._transactions.clock(), "tenant": self.name}
            now, otherwise = connection.execute(self._statements.start, start).one()
            times = {"created_at": now, "updated_at": now, "expires_at": expiry(now, ttl, otherwise)}
            row: dict[str, Any] = {"id": id, "head": 0, "body": body, "user": whose, **times}
            connection.execute(insert(conversations), {"tenant": self.name, **row})
            return _conversation(**row)

        return self._transactions.write(work)

    def read(
        self,
        id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        first: int | None = None,
        last: int | None = None,
    ) -> Conversation:
        low, high, limit = bounds(after, before, first, last)
        statement = self._statements.read_first if last is None else self._statements.read_last
        rows: Sequence[Any] = self._rows(statement, id=id, low=low, high=high, limit=limit)
        top = {row[1]: row for row in rows if not row[1]}
        if not top:
            raise no_conversation(id)
        (head, _, created, body), (updated, _, ends, user) = top[b""], top[None]
        placed = sorted((row for row in rows if row[1]), key=itemgetter(0))
        messages = messages_of([row[3] for row in placed])
        found = tuple(
            Item(name.decode("utf-8"), position, message, seconds(moment))
            for (position, name, moment, _), message in zip(placed, messages, strict=True)
        )
        times = {"created_at": created, "updated_at": updated, "expires_at": ends}
        whose = None if user is None else bytes(user).decode("utf-8")
        return _conversation(id=id, head=head, **times, body=body, user=whose, items=found)

    def item(self, id: str, item: str) -> Item:
        rows = self._rows(self._statements.item, id=id, item=item)
        if not rows:
            self._there(id)
            raise no_item(id, item)
        return _item(rows[0])

    def append(
        self, id: str, messages: Sequence[Message], *, at: int | None = None, ids: Sequence[str] | None = None
    ) -> tuple[Item, ...]:
        names, bodies = named(messages, ids), [message_bytes(message) for message in messages]

        def work(connection: Connection) -> tuple[Item, ...]:
            row = self._present(connection, id)
            known = self._known(connection, id, names) if ids else {}
            new = [entry for entry in zip(names, messages, bodies, strict=True) if entry[0] not in known]
            for name, message in zip(names, messages, strict=True):
                if name in known:
                    same_message(known[name], message)
            if new and at is not None and at != row.head:
                raise ConversationChanged(id, at, row.head)
            moment = max(row.now, row.updated_at)
            common = {"tenant": self.name, "conversation": id, "created_at": moment}
            placed: list[dict[str, Any]] = [
                {"position": position, "id": name, "body": body}
                for position, (name, _, body) in enumerate(new, row.head)
            ]
            if new:
                rows = [{**common, **place} for place in placed]
                connection.execute(self._statements.add, rows if len(rows) > 1 else rows[0])
                change = {"whose": self.name, "which": id, "moved": row.head + len(new), "moment": moment}
                connection.execute(self._statements.advance, change)
            for place, (name, message, _) in zip(placed, new, strict=True):
                known[name] = Item(name, place["position"], message, seconds(moment))
            return tuple(known[name] for name in names)

        return self._transactions.write(work)

    def remove(self, id: str, items: Sequence[str]) -> Conversation:
        def work(connection: Connection) -> Conversation:
            row = self._present(connection, id)
            known = self._known(connection, id, items)
            for item in items:
                if item not in known:
                    raise no_item(id, item)
            self._take_out(connection, id, [item.position for item in known.values()])
            changed = {"head": row.head + bool(items), "updated_at": max(row.now, row.updated_at)}
            self._change(connection, id, **changed)
            return _conversation(**{**_fields(row), **changed})

        return self._transactions.write(work)

    def update(self, id: str, metadata: Mapping[str, Any]) -> Conversation:
        body = metadata_bytes(metadata)

        def work(connection: Connection) -> Conversation:
            row = self._present(connection, id)
            changed = {"body": body, "updated_at": max(row.now, row.updated_at)}
            self._change(connection, id, **changed)
            return _conversation(**{**_fields(row), **changed})

        return self._transactions.write(work)

    def conversations(
        self, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Conversation, ...]:
        wanted: dict[str, Any] = {"limit": page_size(limit)}
        if after is not None:
            wanted |= {"created_at": self._there(after).created_at, "after": after}
        rows = self._page(self._statements.conversations, user, wanted)
        return tuple(_conversation(**_fields(row)) for row in rows)

    def delete(self, id: str) -> None:
        def work(connection: Connection) -> None:
            self._present(connection, id)
            self._delete(connection, id)

        self._transactions.write(work)

    def index(self, id: str, vectors: Mapping[int, bytes], *, created_at: float | None = None) -> None:
        def work(connection: Connection) -> None:
            row = self._present(connection, id)
            if created_at is not None and row.created_at != microseconds(created_at):
                raise no_conversation(id)
            one = {"whose": self.name, "which": id}
            rows = [{**one, "place": place, "raw": raw} for place, raw in vectors.items()]
            if rows:
                connection.execute(self._statements.index, rows)

        self._transactions.write(work)

    def vectors(self, id: str, *, after: int | None = None) -> dict[int, bytes]:
        low, _, _ = bounds(after, None, None, None)
        rows = self._rows(self._statements.vectors, id=id, low=low)
        if not rows:
            self._there(id)
        return {row.position: bytes(row.vector) for row in rows}

    def put(
        self,
        kind: str,
        id: str,
        body: Any,
        *,
        at: int | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Document:
        key = {"kind": checked_name("kind", kind), "id": checked_name("document", id), "tenant": self.name}
        raw, whose, mine = json_bytes(body, "document"), checked_user(user), _is(documents, **key)

        def work(connection: Connection) -> Document:
            row = self._locked_document(connection, kind, id)
            now = row.now if row else self._transactions.now(connection)
            old = row if row and _visible(row) else None
            revision = old.revision if old else 0
            if at is not None and at != revision:
                raise DocumentChanged(kind, id, at, revision)
            values: dict[str, Any] = {
                "revision": revision + 1,
                "created_at": old.created_at if old else now,
                "updated_at": now,
                "expires_at": expiry(now, ttl),
                "body": raw,
                "user": whose,
            }
            statement = insert(documents).values(**key) if row is None else update(documents).where(*mine)
            connection.execute(statement.values(**values))
            return _document(kind=kind, id=id, **values)

        return self._transactions.write(work)

    def get(self, kind: str, id: str) -> Document:
        rows = self._rows(self._statements.document, kind=kind, id=id)
        if not rows:
            raise no_document(kind, id)
        return _document(**_fields(rows[0]))

    def documents(
        self, kind: str, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Document, ...]:
        wanted: dict[str, Any] = {"limit": page_size(limit), "kind": kind}
        if after is not None:
            wanted |= {"created_at": microseconds(self.get(kind, after).created_at), "after": after}
        rows = self._page(self._statements.documents, user, wanted)
        return tuple(_document(**_fields(row)) for row in rows)

    def kinds(self) -> tuple[str, ...]:
        last, found = "", []
        while rows := self._transactions.rows(self._statements.next_kind, {"tenant": self.name, "after": last}):
            last = rows[0].kind
            found.append(last)
        return tuple(found)

    def discard(self, kind: str, id: str) -> None:
        def work(connection: Connection) -> None:
            row = self._locked_document(connection, kind, id)
            if row is None or not _visible(row):
                raise no_document(kind, id)
            connection.execute(delete(documents).where(*_is(documents, tenant=self.name, kind=kind, id=id)))

        self._transactions.write(work)

    def lifetime(self) -> float | None:
        rows = self._transactions.rows(self._statements.start, {"tenant": self.name})
        return None if rows[0].lifetime is None else seconds(rows[0].lifetime)

    def set_lifetime(self, ttl: float | None) -> None:
        length, mine = lifetime(ttl) or None, settings.c.tenant == self.name

        def work(connection: Connection) -> None:
            connection.execute(delete(settings).where(mine))
            if length is not None:
                connection.execute(insert(settings).values(tenant=self.name, lifetime=length))

        self._transactions.write(work)

    def erase(self, user: str | None = None) -> Counts:
        return Counts() if user is not None and not is_name(user) else erase(self._transactions, self.name, user)

    def _rows(self, statement: Any, **parameters: Any) -> Sequence[Row[Any]]:
        """None for names that cannot have been stored; the database would refuse them."""
        if not all(is_name(value) for name, value in parameters.items() if name in _NAMES):
            return []
        return self._transactions.rows(statement, {"tenant": self.name, **parameters})

    def _page(self, pages: Pages, user: str | None, wanted: dict[str, Any]) -> Sequence[Row[Any]]:
        if user is not None:
            wanted["user"] = user
        return self._rows(pages[user is not None, "after" in wanted], **wanted)

    def _there(self, id: str) -> Row[Any]:
        rows = self._rows(self._statements.conversation, id=id)
        if not rows:
            raise no_conversation(id)
        return rows[0]

    def _locked(self, connection: Connection, id: str) -> Row[Any] | None:
        if not is_name(id):
            return None
        parameters = {**self._transactions.clock(), "tenant": self.name, "id": id}
        return connection.execute(self._statements.locked, parameters).one_or_none()

    def _present(self, connection: Connection, id: str) -> Row[Any]:
        row = self._locked(connection, id)
        if row is None or not _visible(row):
            raise no_conversation(id)
        return row

    def _known(self, connection: Connection, id: str, names: Sequence[str]) -> dict[str, Item]:
        asked, found = [name for name in names if is_name(name)], {}
        for start in range(0, len(asked), _BATCH):
            parameters = {"tenant": self.name, "id": id, "names": asked[start : start + _BATCH]}
            for row in connection.execute(self._statements.known, parameters):
                found[row.id] = _item(row)
        return found

    def _locked_document(self, connection: Connection, kind: str, id: str) -> Row[Any] | None:
        if not is_name(kind) or not is_name(id):
            return None
        parameters = {**self._transactions.clock(), "tenant": self.name, "kind": kind, "id": id}
        return connection.execute(self._statements.locked_document, parameters).one_or_none()

    def _take_out(self, connection: Connection, id: str, positions: Sequence[int]) -> None:
        for start in range(0, len(positions), _BATCH):
            batch = items.c.position.in_(positions[start : start + _BATCH])
            connection.execute(delete(items).where(*_is(items, tenant=self.name, conversation=id), batch))

    def _change(self, connection: Connection, id: str, **values: Any) -> None:
        mine = _is(conversations, tenant=self.name, id=id)
        connection.execute(update(conversations).where(*mine).values(**values))

    def _delete(self, connection: Connection, id: str) -> None:
        connection.execute(delete(items).where(*_is(items, tenant=self.name, conversation=id)))
        connection.execute(delete(conversations).where(*_is(conversations, tenant=self.name, id=id)))


def _is(table: Any, **values: Any) -> list[Any]:
    return [table.c[name] == value for name, value in values.items()]


def _visible(row: Row[Any]) -> bool:
    return row.expires_at is None or row.expires_at > row.now


def _fields(row: Row[Any]) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in ("tenant", "now")}


def _item(row: Any) -> Item:
    return Item(row.id, row.position, messages_of([row.body])[0], seconds(row.created_at))


def _times(values: dict[str, Any]) -> dict[str, Any]:
    ends = values.pop("expires_at")
    times = {name: seconds(values.pop(name)) for name in ("created_at", "updated_at")}
    return {**times, "expires_at": None if ends is None else seconds(ends)}


def _conversation(*, body: bytes, items: tuple[Item, ...] = (), **values: Any) -> Conversation:
    return Conversation(**_times(values), **values, metadata=json.loads(body), items=items)


def _document(*, body: bytes, **values: Any) -> Document:
    return Document(**_times(values), **values, body=json.loads(body))
