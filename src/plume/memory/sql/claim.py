"""The next positions of a conversation, for whoever appends to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, func, select, update
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ColumnElement

from plume.memory.sql.prepared import Parameters, Prepared
from plume.memory.sql.tables import conversations
from plume.memory.store import Item

_c = conversations.c


class Claimed(NamedTuple):
    """The first of the positions, the time of what is written there, and the user of the conversation."""

    first: int
    moment: int
    user: str | None


class NothingNew(Exception):
    """Whatever was to be written there is written already: the claim is rolled back."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)


class Claim:
    """Moves the head of a conversation that is `seen`, and locks it. Where the database can, the UPDATE itself says
    what has become of the row, else a SELECT behind it."""

    def __init__(
        self, now: ColumnElement[int], own: ColumnElement[bool], seen: ColumnElement[bool], dialect: Dialect
    ) -> None:
        later = func.max if dialect.name == "sqlite" else func.greatest
        change = {"head": _c.head + bindparam("count", type_=BigInteger()), "updated_at": later(_c.updated_at, now)}
        moved, told = update(conversations).where(own, seen).values(change), (_c.head, _c.updated_at, _c.user)
        asked = select(*told).where(own, seen)
        steps = [moved.returning(*told)] if dialect.update_returning else [moved, asked]
        self._steps = [Prepared(step, dialect) for step in steps]

    def run(self, connection: Connection, parameters: Parameters) -> Claimed | None:
        """So many positions as `count` says; None where there is no such conversation."""
        rows = [step.rows(connection, parameters) for step in self._steps][-1]
        if not rows:
            return None
        head, moment, user = rows[0]
        return Claimed(head - parameters["count"], moment, None if user is None else user.decode("utf-8"))
