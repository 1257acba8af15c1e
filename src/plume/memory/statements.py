"""The statements of the SQL stores, made once for each store. Every value in them is a parameter.

`now` is a parameter, too, or the server's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    LargeBinary,
    Select,
    and_,
    bindparam,
    insert,
    null,
    or_,
    select,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.selectable import CompoundSelect

from plume.memory.tables import Name, conversations, documents, items

_c, _i, _d = conversations.c, items.c, documents.c


class Statements:
    """Parameters: `tenant`, `id`, `kind`, `item`, `names`, `low`, `high`, `limit`, `created_at`, `after`, `now`; of
    `advance`: `whose`, `which`, `moved`, `moment`."""

    def __init__(self, clock: ColumnElement[int] | None, dialect: str) -> None:
        now: ColumnElement[Any] = _number("now") if clock is None else clock
        tenant, id, kind = _name("tenant"), _name("id"), _name("kind")
        seen = or_(_c.expires_at.is_(None), _c.expires_at > now)
        own, mine = and_(_c.tenant == tenant, _c.id == id), and_(_i.tenant == tenant, _i.conversation == id)
        self.now = select(now.label("now"))
        self.conversation = select(conversations).where(own, seen)
        self.locked = select(conversations, now.label("now")).where(own).with_for_update()
        self.add = insert(items)
        this = and_(_c.tenant == _name("whose"), _c.id == _name("which"))  # names of columns would be set
        self.advance = update(conversations).where(this).values(head=_number("moved"), updated_at=_number("moment"))
        self.known = select(items).where(mine, _i.id.in_(bindparam("names", expanding=True)))
        self.item = (
            select(items)
            .join(conversations, and_(_c.tenant == _i.tenant, _c.id == _i.conversation))
            .where(mine, seen, _i.id == _name("item"))
        )
        # One statement sees one moment. Under the messages come two rows without an id, of the conversation itself.
        top = (
            select(_c.head, null(), _c.created_at, _c.body).where(own, seen),
            select(_c.updated_at, null(), _c.expires_at, null()).where(own, seen),
        )
        first = _between(mine).order_by(_i.position).limit(bindparam("limit"))
        last = _between(mine).order_by(_i.position.desc()).limit(bindparam("limit"))
        self.read_first, self.read_last = (_over(rows, top, dialect) for rows in (first, last))
        self.page = _page(conversations, [_c.tenant == tenant, seen])
        self.next_page = _page(conversations, [_c.tenant == tenant, seen], continued=True)

        seen = or_(_d.expires_at.is_(None), _d.expires_at > now)
        kept = and_(_d.tenant == tenant, _d.kind == kind, _d.id == id)
        self.document = select(documents).where(kept, seen)
        self.locked_document = select(documents, now.label("now")).where(kept).with_for_update()
        self.documents = _page(documents, [_d.tenant == tenant, _d.kind == kind, seen])
        self.next_documents = _page(documents, [_d.tenant == tenant, _d.kind == kind, seen], continued=True)


def _between(mine: ColumnElement[bool]) -> Select[Any]:
    id = type_coerce(_i.id, LargeBinary()).label("id")  # decoding many is quicker by the one who reads them
    low, high = _number("low"), _number("high")
    return select(_i.position, id, _i.created_at, _i.body).where(mine, _i.position > low, _i.position < high)


def _over(rows: Select[Any], top: Sequence[Select[Any]], dialect: str) -> CompoundSelect[Any]:
    """SQLite takes no limit in a union but in a subquery; MySQL would write the subquery's bodies to disk first."""
    return union_all(select(rows.subquery()) if dialect == "sqlite" else rows, *top)


def _page(table: Any, mine: list[ColumnElement[bool]], *, continued: bool = False) -> Select[Any]:
    """Newest first; `continued` behind the row that `created_at` and `after` name."""
    made, id = table.c.created_at, table.c.id
    if continued:
        moment = _number("created_at")
        mine = [*mine, or_(made < moment, and_(made == moment, id < _name("after")))]
    return select(table).where(*mine).order_by(made.desc(), id.desc()).limit(bindparam("limit"))


def _name(parameter: str) -> BindParameter[str]:
    return bindparam(parameter, type_=Name())


def _number(parameter: str) -> BindParameter[int]:
    return bindparam(parameter, type_=BigInteger())
