"""A store in this process's memory: for trying out, for tests, and as the plainest statement of what the others do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Never, Self

from plume.memory.bodies import bodies_of
from plume.memory.in_memory.rows import InMemoryRows
from plume.memory.in_memory.tenant import InMemoryTenant
from plume.memory.records import json_bytes, microseconds, seconds
from plume.memory.sealing.master import MasterKey
from plume.memory.sealing.seal import KEPT, PLAIN, Sealing, sealing_of
from plume.memory.store import (
    Clock,
    Counts,
    Durability,
    Line,
    checked_name,
    no_search_tables,
    page_size,
)


class InMemoryStore:
    """Nothing is written anywhere; it ends with the process."""

    def __init__(self, clock: Clock | None = None, keys: Sequence[MasterKey] = ()) -> None:
        self._clock = clock or time.time
        self._lock = threading.RLock()
        self._tenants: dict[str, InMemoryTenant] = {}
        self._trail: list[Line] = []
        self.sealing: Sealing = PLAIN
        self.sealing = sealing_of(self, "memory:", keys)

    def __repr__(self) -> str:
        return "InMemoryStore()"

    def tenant(self, name: str) -> InMemoryTenant:
        checked_name("tenant", name)
        with self._lock:
            if name not in self._tenants:
                keys = None if name == KEPT else self.tenant(KEPT)
                self._tenants[name] = InMemoryTenant(bodies_of(self.sealing, name), self._clock, self._lock, keys)
            return self._tenants[name]

    def rows(self, tenant: str) -> InMemoryRows:
        return InMemoryRows(self.tenant(tenant), self._lock)

    def tenants(self, *, after: str | None = None, limit: int = 100) -> tuple[str, ...]:
        size = page_size(limit)
        behind = b"" if after is None else checked_name("tenant", after).encode("utf-8")
        with self._lock:
            names = sorted((name for name, one in self._tenants.items() if one.holds_anything()), key=str.encode)
            return tuple(name for name in names if name.encode("utf-8") > behind)[:size]

    def search_tables(self) -> Never:
        raise no_search_tables("memory:")

    def sweep(self, limit: int = 1000) -> Counts:
        removed, size = Counts(), page_size(limit)
        with self._lock:
            for tenant in self._tenants.values():
                removed += tenant.sweep(max(0, size - removed.conversations - removed.documents))
        return removed

    def scrub(self) -> tuple[str, ...]:
        return ()

    def destroy_keys(self, tenant: str, user: str | None) -> bool:
        return self.sealing.destroy(tenant, user)

    def note(self, entry: Mapping[str, Any]) -> Line:
        kept = json.loads(json_bytes(dict(entry), "audit line"))
        with self._lock:
            line = Line(len(self._trail) + 1, seconds(microseconds(self._clock())), kept)
            self._trail.append(line)
            return line._replace(entry=_again(kept))

    def trail(self, *, after: int | None = None, limit: int = 100) -> tuple[Line, ...]:
        start, size = max(0, after or 0), page_size(limit)
        with self._lock:
            return tuple(line._replace(entry=_again(line.entry)) for line in self._trail[start : start + size])

    def durability(self) -> Durability:
        return Durability({}, "what is kept in memory ends with the process")

    def close(self) -> None:
        self._tenants.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _again(value: Any) -> Any:
    return json.loads(json.dumps(value))
