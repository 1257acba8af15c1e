"""The statements of the SQL stores, made once for each store. Every value in them is a parameter.

`now` is a parameter, too, or the server's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    LargeBinary,
    Select,
    and_,
    bindparam,
    insert,
    literal,
    null,
    or_,
    select,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.selectable import CompoundSelect

from plume.memory.sql.claim import Claim
from plume.memory.sql.known import Known
from plume.memory.sql.prepared import Prepared
from plume.memory.sql.tables import Name, conversations, documents, items, settings

Pages = Mapping[tuple[bool, bool], Select[Any]]  # of one user? continued?

_c, _i, _d = conversations.c, items.c, documents.c
_SHOWN = (_i.position, _i.id, _i.created_at, _i.body)


class Statements:
    """Parameters: `tenant`, `user`, `id`, `kind`, `item`, `low`, `high`, `limit`, `created_at`, `after`,
    `now`; of `claim`: `count`; of `index`: `whose`, `which`, `place`, `raw`."""

    def __init__(self, clock: ColumnElement[int] | None, dialect: Dialect) -> None:
        now: ColumnElement[Any] = _number("now") if clock is None else clock
        tenant, id, kind = _name("tenant"), _name("id"), _name("kind")
        seen = or_(_c.expires_at.is_(None), _c.expires_at > now)
        own, mine = and_(_c.tenant == tenant, _c.id == id), and_(_i.tenant == tenant, _i.conversation == id)
        self.now = select(now.label("now"))
        lifetime = select(settings.c.lifetime).where(settings.c.tenant == tenant)
        self.start = select(now.label("now"), lifetime.scalar_subquery().label("lifetime"))
        self.conversation = select(conversations).where(own, seen)
        held = select(_c.head, _c.created_at, _c.updated_at, _c.expires_at, _c.body, _c.user, now).where(own)
        self.locked = Prepared(held.with_for_update(), dialect)
        filled = ("tenant", "conversation", "position", "id", "created_at", "body")
        self.add = Prepared(insert(items), dialect, filled)
        self.claim = Claim(now, own, seen, dialect)
        self.known = Known(mine, dialect)
        place = and_(_i.tenant == _name("whose"), _i.conversation == _name("which"), _i.position == _number("place"))
        self.index = update(items).where(place).values(vector=bindparam("raw", type_=LargeBinary()))
        self.vectors = (
            select(_i.position, _i.vector)
            .join(conversations, and_(_c.tenant == _i.tenant, _c.id == _i.conversation))
            .where(mine, seen, _i.vector.is_not(None), _i.position > _number("low"))
            .order_by(_i.position)
        )
        self.item = (
            select(*_SHOWN)
            .join(conversations, and_(_c.tenant == _i.tenant, _c.id == _i.conversation))
            .where(mine, seen, _i.id == _name("item"))
        )
        # One statement sees one moment. Under the messages come two rows of the conversation itself; the id of one is
        # empty, the other has none.
        user, nothing = type_coerce(_c.user, LargeBinary()), literal(b"", LargeBinary())
        top = (
            select(_c.head, nothing, _c.created_at, _c.body).where(own, seen),
            select(_c.updated_at, null(), _c.expires_at, user).where(own, seen),
        )
        first = _between(mine).order_by(_i.position).limit(bindparam("limit"))
        last = _between(mine).order_by(_i.position.desc()).limit(bindparam("limit"))
        self.read_first, self.read_last = (Prepared(_over(rows, top, dialect.name), dialect) for rows in (first, last))
        self.conversations = _pages(conversations, [_c.tenant == tenant, seen])

        seen = or_(_d.expires_at.is_(None), _d.expires_at > now)
        kept = and_(_d.tenant == tenant, _d.kind == kind, _d.id == id)
        self.document = select(documents).where(kept, seen)
        self.locked_document = select(documents, now.label("now")).where(kept).with_for_update()
        self.held_document = select(_d.body).where(kept).with_for_update(read=True)
        self.documents = _pages(documents, [_d.tenant == tenant, _d.kind == kind, seen])
        self.next_kind = _next(_d.kind, _d.tenant == tenant)
        firsts = [_next(table.c.tenant).subquery() for table in (conversations, documents)]
        self.next_tenant = union_all(*(select(first.c.tenant.label("name")) for first in firsts))


def _between(mine: ColumnElement[bool]) -> Select[Any]:
    id = type_coerce(_i.id, LargeBinary()).label("id")  # decoding many is quicker by the one who reads them
    low, high = _number("low"), _number("high")
    return select(_i.position, id, _i.created_at, _i.body).where(mine, _i.position > low, _i.position < high)


def _over(rows: Select[Any], top: Sequence[Select[Any]], dialect: str) -> CompoundSelect[Any]:
    """SQLite takes no limit in a union but in a subquery; MySQL would write the subquery's bodies to disk first."""
    return union_all(select(rows.subquery()) if dialect == "sqlite" else rows, *top)


def _pages(table: Any, mine: list[ColumnElement[bool]]) -> Pages:
    """Newest first; of one `user` or of all, from the beginning or behind the row that `created_at` and `after`
    name."""
    made, id, moment = table.c.created_at, table.c.id, _number("created_at")
    page = select(table).where(*mine).order_by(made.desc(), id.desc()).limit(bindparam("limit"))
    behind = or_(made < moment, and_(made == moment, id < _name("after")))
    users = {False: page, True: page.where(table.c.user == _name("user"))}
    return {(one, on): page.where(behind) if on else page for one, page in users.items() for on in (False, True)}


def _next(column: Any, *mine: ColumnElement[bool]) -> Select[Any]:
    """The next name in an index that begins with these columns: one look, where DISTINCT would read it all."""
    return select(column.label(column.name)).where(*mine, column > _name("after")).order_by(column).limit(1)


def _name(parameter: str) -> BindParameter[str]:
    return bindparam(parameter, type_=Name())


def _number(parameter: str) -> BindParameter[int]:
    return bindparam(parameter, type_=BigInteger())
