"""The door that redacts, as `plume serve` and `plume chat` put it before a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from plume.memory.redacting import RedactingStore, Scope
from plume.memory.store import Store
from plume.memory.vault import read_key
from plume.redact import redaction


def door(kinds: str | None, names: Path | None, scope: Scope | None = None) -> Callable[[Store], Store]:
    """What puts it there, if it is asked for. Raises UserError for kinds, names or a key that cannot be used."""
    if kinds is None and names is None:
        return lambda store: store
    wanted, key = redaction((kinds or "name").split(","), names), read_key()
    return lambda store: RedactingStore(store, wanted, key, scope)
