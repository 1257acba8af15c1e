"""The store on SQLite, PostgreSQL, MySQL and MariaDB."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, insert, select

from plume.memory.bodies import bodies_of
from plume.memory.records import json_bytes, seconds
from plume.memory.sealing.master import MasterKey
from plume.memory.sealing.seal import PLAIN, Sealing, sealing_of
from plume.memory.sql import lifetime
from plume.memory.sql.rows import SQLRows
from plume.memory.sql.search_tables import SearchTables, drop_search_tables
from plume.memory.sql.tables import audit
from plume.memory.sql.tenant import SQLTenant
from plume.memory.sql.transactions import Transactions
from plume.memory.store import Clock, Counts, Durability, Line, checked_name, page_size


class SQLStore:
    def __init__(self, url: str, clock: Clock | None = None, keys: Sequence[MasterKey] = ()) -> None:
        """Connects and brings the tables up to date. Raises UserError when that or the keys fail."""
        self._transactions = Transactions(url, clock)
        self.sealing: Sealing = PLAIN
        try:
            self.sealing = sealing_of(self, self._transactions.name, keys)
            if self.sealing.active:
                drop_search_tables(self._transactions)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"SQLStore({self._transactions.name!r})"

    def tenant(self, name: str) -> SQLTenant:
        return SQLTenant(self._transactions, bodies_of(self.sealing, checked_name("tenant", name)))

    def rows(self, tenant: str) -> SQLRows:
        return SQLRows(self._transactions, tenant)

    def tenants(self, *, after: str | None = None, limit: int = 100) -> tuple[str, ...]:
        """Each name by one look at the indexes, however much every tenant has."""
        last, found = "" if after is None else checked_name("tenant", after), []
        for _ in range(page_size(limit)):
            rows = self._transactions.rows(self._transactions.statements.next_tenant, {"after": last})
            names = [row.name for row in rows]
            if not names:
                break
            last = min(names, key=str.encode)
            found.append(last)
        return tuple(found)

    def search_tables(self) -> SearchTables:
        return SearchTables(self._transactions, self.sealing.active)

    def sweep(self, limit: int = 1000) -> Counts:
        return lifetime.sweep(self._transactions, page_size(limit))

    def scrub(self) -> tuple[str, ...]:
        return self._transactions.scrub()

    def destroy_keys(self, tenant: str, user: str | None) -> bool:
        return self.sealing.destroy(tenant, user)

    def note(self, entry: Mapping[str, Any]) -> Line:
        body = json_bytes(dict(entry), "audit line")

        def work(connection: Connection) -> Line:
            now = self._transactions.now(connection)
            made = connection.execute(insert(audit).values(at=now, body=body)).inserted_primary_key
            assert made is not None
            return Line(made[0], seconds(now), json.loads(body))

        return self._transactions.write(work)

    def trail(self, *, after: int | None = None, limit: int = 100) -> tuple[Line, ...]:
        behind = audit.c.number > max(0, after or 0)
        page = select(audit).where(behind).order_by(audit.c.number).limit(page_size(limit))
        return tuple(
            Line(row.number, seconds(row.at), json.loads(row.body)) for row in self._transactions.rows(page, {})
        )

    def durability(self) -> Durability:
        return self._transactions.durability()

    def close(self) -> None:
        self._transactions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
