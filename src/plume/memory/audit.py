"""The audit trail: who did what to whose data, and how much of it, but nothing of what was in it.

Tenants and persons stand in it as keyed hashes. So no line must ever be changed: who knows a name finds its lines, and
after an erasure nobody learns the name from them who does not guess it and hold the key, which lies in the store.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from typing import Literal

from plume.errors import DocumentChanged, NotFound
from plume.memory.store import Line, Store

What = Literal[
    "create_key", "revoke_key", "export", "restore", "erase", "sweep", "set_lifetime", "rotate_key", "verify"
]
PROGRAM = "program"  # who, when the caller does not say

_TENANT, _KIND, _ID = "plume:audit", "key", "names"
_PAGE = 1000


def record(
    store: Store, what: What, *, who: str = PROGRAM, tenant: str | None = None, user: str | None = None, **counts: int
) -> Line:
    """Add a line. `who` is the prefix of an API key, or what kind of program."""
    entry: dict[str, object] = {"what": what, "who": who}
    if tenant is not None:
        entry["tenant"] = pseudonym(store, tenant)
    if user is not None:
        entry["user"] = pseudonym(store, tenant or "", user)
    return store.note({**entry, **counts})


def trail(store: Store, tenant: str | None = None, user: str | None = None) -> Iterator[Line]:
    """The lines in their order; about a tenant and everybody in it, or about a person in it."""
    name, value = None, None
    if tenant is not None:
        name, value = ("tenant", pseudonym(store, tenant)) if user is None else ("user", pseudonym(store, tenant, user))
    after = 0
    while page := store.trail(after=after, limit=_PAGE):
        yield from (line for line in page if name is None or line.entry.get(name) == value)
        after = page[-1].number


def pseudonym(store: Store, *names: str) -> str:
    """What stands for a tenant, or for a person in it."""
    message = b"".join(len(name.encode()).to_bytes(4, "big") + name.encode() for name in names)
    return hmac.digest(_key(store), message, hashlib.sha256).hex()[:32]


def _key(store: Store) -> bytes:
    kept = store.tenant(_TENANT)
    try:
        return bytes.fromhex(kept.get(_KIND, _ID).body)
    except NotFound:
        made = secrets.token_bytes(32)
    try:
        kept.put(_KIND, _ID, made.hex(), at=0)
        return made
    except DocumentChanged:  # somebody else was faster
        return bytes.fromhex(kept.get(_KIND, _ID).body)
