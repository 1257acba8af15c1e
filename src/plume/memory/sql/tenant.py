"""One tenant on SQLite, PostgreSQL, MySQL and MariaDB.

Whoever writes to a conversation first locks its row; so messages get their positions one writer after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, update
from sqlalchemy.exc import IntegrityError

from plume.errors import ConversationChanged, DocumentChanged
from plume.memory.bodies import Bodies
from plume.memory.records import expiry, json_bytes, lifetime, message_bytes, metadata_bytes, microseconds, seconds
from plume.memory.sealing.seal import settled
from plume.memory.sql.claim import Claimed, NothingNew
from plume.memory.sql.columns import Locked, fields, is_row, shown_item, times_of, visible
from plume.memory.sql.keys import held_keys
from plume.memory.sql.lifetime import erase
from plume.memory.sql.statements import Pages
from plume.memory.sql.tables import conversations, documents, items, settings
from plume.memory.sql.transactions import Transactions
from plume.memory.store import (
    VAULT,
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
from plume.types import Message

_NAMES = {"id", "item", "kind", "after", "user"}  # of parameters
_BATCH = 500  # positions in one IN (...)


class SQLTenant:
    def __init__(self, transactions: Transactions, bodies: Bodies) -> None:
        self.name, self._transactions, self._bodies = bodies.tenant, transactions, bodies
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
            if old is not None and visible(old):
                raise taken(id)
            if old is not None:
                self._delete(connection, id)
            start = {**self._transactions.clock(), "tenant": self.name}
            now, otherwise = connection.execute(self._statements.start, start).one()
            times = {"created_at": now, "updated_at": now, "expires_at": expiry(now, ttl, otherwise)}
            sealed = self._bodies.sealed_metadata(self._keys(connection, whose), whose, id, body)
            row: dict[str, Any] = {"id": id, "head": 0, "body": sealed, "user": whose, **times}
            connection.execute(insert(conversations), {"tenant": self.name, **row})
            return self._conversation(**row)

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
        return settled(lambda: self._read(id, self._rows(statement, id=id, low=low, high=high, limit=limit)))

    def _read(self, id: str, rows: Sequence[Any]) -> Conversation:
        top = {row[1]: row for row in rows if not row[1]}
        if not top:
            raise no_conversation(id)
        (head, _, created, body), (updated, _, ends, user) = top[b""], top[None]
        placed = sorted(row for row in rows if row[1])
        found = self._items(
            id, [(position, name.decode("utf-8"), moment, raw) for position, name, moment, raw in placed]
        )
        times = {"created_at": created, "updated_at": updated, "expires_at": ends}
        whose = None if user is None else bytes(user).decode("utf-8")
        return self._conversation(id=id, head=head, **times, body=body, user=whose, items=tuple(found))

    def item(self, id: str, item: str) -> Item:
        def read() -> Item:
            rows = self._rows(self._statements.item, id=id, item=item)
            if not rows:
                self._there(id)
                raise no_item(id, item)
            return self._items(id, [shown_item(rows[0])])[0]

        return settled(read)

    def append(
        self, id: str, messages: Sequence[Message], *, at: int | None = None, ids: Sequence[str] | None = None
    ) -> tuple[Item, ...]:
        names, bodies = named(messages, ids), [message_bytes(message) for message in messages]
        given = dict(zip(names, zip(messages, bodies, strict=True), strict=True))
        repeats = False  # is one of the ids there already?

        def work(connection: Connection) -> tuple[Item, ...]:
            nonlocal repeats
            head, moment, user = self._claimed(connection, id, len(names))
            known = self._known(connection, id, names) if repeats or (ids and at not in (None, head)) else {}
            repeated = [same_message(known[name], given[name][0]) for name in names if name in known]
            new = [name for name in names if name not in known]
            if not new:
                raise NothingNew(repeated)
            if at is not None and at != head:
                raise ConversationChanged(id, at, head)
            if known:
                self._change(connection, id, head=head + len(new))
            placed = [(place, name, given[name][1]) for place, name in enumerate(new, head)]
            sealed = self._bodies.sealed_messages(self._keys(connection, user), user, id, placed)
            common = {"tenant": self.name, "conversation": id, "created_at": moment}
            added = zip(placed, sealed, strict=True)
            rows = [{**common, "position": place, "id": name, "body": body} for (place, name, _), body in added]
            try:
                self._statements.add.run_each(connection, rows)
            except IntegrityError:
                repeats = True  # and the transaction is tried again
                raise
            for place, name, _ in placed:
                known[name] = Item(name, place, given[name][0], seconds(moment))
            return tuple(known[name] for name in names)

        try:
            return settled(lambda: self._transactions.write(work))
        except NothingNew as found:
            return found.items

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
            return self._conversation(id=id, **{**row.fields, **changed})

        return settled(lambda: self._transactions.write(work))

    def update(self, id: str, metadata: Mapping[str, Any]) -> Conversation:
        body = metadata_bytes(metadata)

        def work(connection: Connection) -> Conversation:
            row = self._present(connection, id)
            sealed = self._bodies.sealed_metadata(self._keys(connection, row.user), row.user, id, body)
            changed = {"body": sealed, "updated_at": max(row.now, row.updated_at)}
            self._change(connection, id, **changed)
            return self._conversation(id=id, **{**row.fields, **changed})

        return self._transactions.write(work)

    def conversations(
        self, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Conversation, ...]:
        wanted: dict[str, Any] = {"limit": page_size(limit)}
        if after is not None:
            wanted |= {"created_at": self._there(after).created_at, "after": after}

        def read() -> tuple[Conversation, ...]:
            rows = self._page(self._statements.conversations, user, wanted)
            return tuple(self._conversation(**fields(row)) for row in rows)

        return settled(read)

    def delete(self, id: str) -> None:
        def work(connection: Connection) -> None:
            self._present(connection, id)
            self._delete(connection, id)

        self._transactions.write(work)

    def index(self, conversation: Conversation, vectors: Mapping[int, bytes]) -> None:
        def work(connection: Connection) -> None:
            row = self._present(connection, conversation.id)
            if row.created_at != microseconds(conversation.created_at):
                raise no_conversation(conversation.id)
            one, keys = {"whose": self.name, "which": conversation.id}, self._keys(connection, row.user)
            sealed = self._bodies.sealed_vectors(keys, row.user, conversation.id, vectors)
            rows = [{**one, "place": place, "raw": raw} for place, raw in sealed.items()]
            if rows:
                connection.execute(self._statements.index, rows)

        self._transactions.write(work)

    def vectors(self, id: str, *, after: int | None = None) -> dict[int, bytes]:
        low, _, _ = bounds(after, None, None, None)

        def read() -> dict[int, bytes]:
            rows = self._rows(self._statements.vectors, id=id, low=low)
            if not rows:
                self._there(id)
            return self._bodies.vectors(id, {row.position: bytes(row.vector) for row in rows})

        return settled(read)

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
        raw, whose, mine = json_bytes(body, "document"), checked_user(user), is_row(documents, **key)

        def work(connection: Connection) -> Document:
            row = self._locked_document(connection, kind, id)
            now = row.now if row else self._transactions.now(connection)
            old = row if row and visible(row) else None
            revision = old.revision if old else 0
            if at is not None and at != revision:
                raise DocumentChanged(kind, id, at, revision)
            values: dict[str, Any] = {
                "revision": revision + 1,
                "created_at": old.created_at if old else now,
                "updated_at": now,
                "expires_at": expiry(now, ttl),
                "body": self._bodies.sealed_document(self._keys(connection, whose), whose, kind, id, revision + 1, raw),
                "user": whose,
            }
            statement = insert(documents).values(**key) if row is None else update(documents).where(*mine)
            connection.execute(statement.values(**values))
            return self._document(kind=kind, id=id, **values)

        return self._transactions.write(work)

    def get(self, kind: str, id: str) -> Document:
        def read() -> Document:
            rows = self._rows(self._statements.document, kind=kind, id=id)
            if not rows:
                raise no_document(kind, id)
            return self._document(**fields(rows[0]))

        return settled(read)

    def documents(
        self, kind: str, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Document, ...]:
        wanted: dict[str, Any] = {"limit": page_size(limit), "kind": kind}
        if after is not None:
            wanted |= {"created_at": microseconds(self.get(kind, after).created_at), "after": after}

        def read() -> tuple[Document, ...]:
            rows = self._page(self._statements.documents, user, wanted)
            return tuple(self._document(**fields(row)) for row in rows)

        return settled(read)

    def kinds(self) -> tuple[str, ...]:
        last, found = "", []
        while rows := self._transactions.rows(self._statements.next_kind, {"tenant": self.name, "after": last}):
            last = rows[0].kind
            found.append(last)
        return tuple(found)

    def discard(self, kind: str, id: str) -> None:
        def work(connection: Connection) -> None:
            row = self._locked_document(connection, kind, id)
            if row is None or not visible(row):
                raise no_document(kind, id)
            connection.execute(delete(documents).where(*is_row(documents, tenant=self.name, kind=kind, id=id)))

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

    def _rows(self, statement: Any, **parameters: Any) -> Sequence[Any]:
        """None for names that cannot have been stored; the database would refuse them."""
        if not all(is_name(value) for name, value in parameters.items() if name in _NAMES):
            return []
        return self._transactions.rows(statement, {"tenant": self.name, **parameters})

    def _page(self, pages: Pages, user: str | None, wanted: dict[str, Any]) -> Sequence[Row[Any]]:
        if user is not None:
            wanted["user"] = user
        return self._rows(pages[user is not None, "after" in wanted], **wanted)

    def _there(self, id: str) -> Row[Any]:
        rows: Sequence[Row[Any]] = self._rows(self._statements.conversation, id=id)
        if not rows:
            raise no_conversation(id)
        return rows[0]

    def _locked(self, connection: Connection, id: str) -> Locked | None:
        if not is_name(id):
            return None
        parameters = {**self._transactions.clock(), "tenant": self.name, "id": id}
        rows = self._statements.locked.rows(connection, parameters)
        return Locked(*rows[0]) if rows else None

    def _present(self, connection: Connection, id: str) -> Locked:
        row = self._locked(connection, id)
        if row is None or not visible(row):
            raise no_conversation(id)
        return row

    def _claimed(self, connection: Connection, id: str, count: int) -> Claimed:
        parameters = {**self._transactions.clock(), "tenant": self.name, "id": id, "count": count}
        claimed = self._statements.claim.run(connection, parameters) if is_name(id) else None
        if claimed is None:
            raise no_conversation(id)
        return claimed

    def _known(self, connection: Connection, id: str, names: Sequence[str]) -> dict[str, Item]:
        found = self._statements.known.rows(connection, self.name, id, names)
        return {item.id: item for item in self._items(id, found)}

    def _locked_document(self, connection: Connection, kind: str, id: str) -> Row[Any] | None:
        if not is_name(kind) or not is_name(id):
            return None
        parameters = {**self._transactions.clock(), "tenant": self.name, "kind": kind, "id": id}
        return connection.execute(self._statements.locked_document, parameters).one_or_none()

    def _keys(self, connection: Connection, user: str | None) -> bytes:
        return held_keys(connection, self._transactions, self._bodies, user)

    def _items(self, id: str, rows: Sequence[tuple[int, str, int, bytes]]) -> list[Item]:
        messages = self._bodies.messages(id, [(position, name, raw) for position, name, _, raw in rows])
        return [
            Item(name, position, message, seconds(moment))
            for (position, name, moment, _), message in zip(rows, messages, strict=True)
        ]

    def _conversation(
        self, *, id: str, user: str | None, body: bytes, items: tuple[Item, ...] = (), **values: Any
    ) -> Conversation:
        metadata = self._bodies.metadata(id, user, body)
        return Conversation(id, **times_of(values), **values, user=user, metadata=metadata, items=items)

    def _document(self, *, kind: str, id: str, revision: int, user: str | None, body: bytes, **values: Any) -> Document:
        opened = self._bodies.document(kind, id, revision, user, body)
        return Document(kind, id, revision, **times_of(values), **values, user=user, body=opened)

    def _take_out(self, connection: Connection, id: str, positions: Sequence[int]) -> None:
        for start in range(0, len(positions), _BATCH):
            batch = items.c.position.in_(positions[start : start + _BATCH])
            connection.execute(delete(items).where(*is_row(items, tenant=self.name, conversation=id), batch))

    def _change(self, connection: Connection, id: str, **values: Any) -> None:
        mine = is_row(conversations, tenant=self.name, id=id)
        connection.execute(update(conversations).where(*mine).values(**values))

    def _delete(self, connection: Connection, id: str) -> None:
        connection.execute(delete(items).where(*is_row(items, tenant=self.name, conversation=id)))
        connection.execute(delete(documents).where(*is_row(documents, tenant=self.name, kind=VAULT, id=id)))
        connection.execute(delete(conversations).where(*is_row(conversations, tenant=self.name, id=id)))
