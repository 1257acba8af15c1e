"""Messages by their ids, for whoever repeats an append or takes messages out."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select, union_all
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ColumnElement

from plume.memory.sql.prepared import Prepared
from plume.memory.sql.tables import Name, items
from plume.memory.store import is_name

_FEW, _MANY = 4, 500  # ids in one statement: those of a turn, and more

_i = items.c


class Known:
    """Statements with room for `_FEW` and for `_MANY` ids; what room is left, an id takes that is there already. For a
    few, a SELECT each: of an IN, PostgreSQL is readier to think that reading the whole conversation is quicker."""

    def __init__(self, mine: ColumnElement[bool], dialect: Dialect) -> None:
        shown = select(_i.position, _i.id, _i.created_at, _i.body).where(mine)
        few, many = ([bindparam(f"id{n}", type_=Name()) for n in range(size)] for size in (_FEW, _MANY))
        self._few = Prepared(union_all(*(shown.where(_i.id == one) for one in few)), dialect)
        self._many = Prepared(shown.where(_i.id.in_(many)), dialect)

    def rows(
        self, connection: Connection, tenant: str, id: str, names: Sequence[str]
    ) -> list[tuple[int, str, int, bytes]]:
        """Position, id, time in microseconds and body of those that are there."""
        asked, found = [name for name in names if is_name(name)], list[tuple[int, str, int, bytes]]()
        statement, size = (self._few, _FEW) if len(asked) <= _FEW else (self._many, _MANY)
        for start in range(0, len(asked), size):
            batch = asked[start : start + size]
            named = {f"id{n}": batch[min(n, len(batch) - 1)] for n in range(size)}
            rows = statement.rows(connection, {"tenant": tenant, "id": id, **named})
            found += [(position, name.decode("utf-8"), moment, body) for position, name, moment, body in rows]
        return found
