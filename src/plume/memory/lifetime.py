"""How long things live, and the sweep that removes what has ended. What has expired is invisible before that."""

from __future__ import annotations

from dataclasses import asdict

from plume.memory import audit
from plume.memory.store import Counts, Store, unreserved


def set_lifetime(store: Store, tenant: str, ttl: float | None, *, who: str = audit.PROGRAM) -> None:
    """Conversations of the tenant that are created from now on end so many seconds later, unless they say otherwise;
    None for never."""
    store.tenant(unreserved(tenant)).set_lifetime(ttl)
    audit.record(store, "set_lifetime", who=who, tenant=tenant, seconds=0 if ttl is None else round(ttl))


def sweep(store: Store, limit: int = 1000, *, who: str = audit.PROGRAM) -> Counts:
    """Remove at most so many conversations and documents that have expired. May run in many programs at once."""
    removed = store.sweep(limit)
    if removed:
        audit.record(store, "sweep", who=who, **asdict(removed))
    return removed
