"""Keys of persons on the SQL stores: what a transaction that seals holds fast until it ends."""

from __future__ import annotations

from sqlalchemy import Connection, insert

from plume.memory.bodies import Bodies
from plume.memory.sealing.seal import KEPT, MARK
from plume.memory.sql.tables import documents
from plume.memory.sql.transactions import Transactions


def held_keys(connection: Connection, transactions: Transactions, bodies: Bodies, user: str | None) -> bytes:
    """What the store holds of this person's keys, the first of which is made here; nothing where nothing is sealed."""
    if not bodies.sealing.active:
        return b""
    held = transactions.statements.held_document
    where = {"tenant": KEPT, "kind": bodies.tenant, "id": bodies.sealing.person(bodies.tenant, user)}
    found = connection.execute(held, where).scalar_one_or_none()
    if found is None:
        mark = connection.execute(held, {"tenant": KEPT, "kind": MARK[0], "id": MARK[1]}).scalar_one_or_none()
        found = bodies.sealing.first_keys(bodies.tenant, user, mark)
        now = transactions.now(connection)
        values = {"revision": 1, "created_at": now, "updated_at": now, "body": found}
        connection.execute(insert(documents), {**where, **values})
    return bytes(found)
