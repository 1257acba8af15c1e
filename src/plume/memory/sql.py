"""The store on SQLite, PostgreSQL, MySQL and MariaDB."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from plume.memory.sql_tenant import SQLTenant
from plume.memory.store import Clock, Durability, checked_name, page_size
from plume.memory.transactions import Transactions


class SQLStore:
    def __init__(self, url: str, clock: Clock | None = None) -> None:
        """Connects and brings the tables up to date. Raises UserError when that is impossible."""
        self._transactions = Transactions(url, clock)

    def __repr__(self) -> str:
        return f"SQLStore({self._transactions.name!r})"

    def tenant(self, name: str) -> SQLTenant:
        return SQLTenant(self._transactions, checked_name("tenant", name))

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
