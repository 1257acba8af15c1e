"""API keys: who holds one speaks for a tenant. A key is shown once; the store keeps a keyed hash of it.

A key is `plume-PREFIX-SECRET`. The prefix is public and finds the record; the secret is 256 random bits, so the hash
needs no slowness, only a salt of its own. Keys lie as documents of a tenant that no key can speak for, on any store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from plume.errors import NotFound, UserError, shown
from plume.memory import audit
from plume.memory.store import MANY, RESERVED, Document, Store, checked_name, unreserved

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_TENANT = f"{RESERVED}keys"
_KIND = "api_key"
_FORM = re.compile(r"plume-([0-9a-f]{16})-([A-Za-z0-9_-]{43})")
_NOBODY = {"salt": "00" * 16, "hash": "00" * 32}  # compared with when there is no such prefix, so that it takes as long


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; `prefix` is its public part. Times are seconds since 1970."""

    prefix: str
    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: float
    expires_at: float | None
    revoked: bool

    def allows(self, scope: Scope) -> bool:
        """`admin` includes everything, `write` does not include reading."""
        return scope in self.scopes or "admin" in self.scopes


def create_key(
    store: Store,
    tenant: str,
    *,
    name: str = "",
    scopes: Sequence[str] = ("read", "write"),
    ttl: float | None = None,
    who: str = audit.PROGRAM,
) -> tuple[str, Key]:
    """The key itself, which nobody can show again, and what is known of it. It ends after `ttl` seconds.

    Raises UserError for an unknown scope, or a tenant that no key may speak for.
    """
    unreserved(checked_name("tenant", tenant))
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong or not scopes:
        raise UserError(f"unknown scopes: {', '.join(wrong) or 'none given'}", f"use {', '.join(SCOPES)}")
    prefix, secret, salt = secrets.token_hex(8), secrets.token_urlsafe(32), secrets.token_bytes(16)
    body = {
        "tenant": tenant,
        "name": name,
        "scopes": sorted(set(scopes), key=SCOPES.index),
        "salt": salt.hex(),
        "hash": _hash(salt, secret).hex(),
        "revoked": False,
    }
    document = store.tenant(_TENANT).put(_KIND, prefix, body, at=0, ttl=ttl, user=tenant)
    audit.record(store, "create_key", who=who, tenant=tenant)
    return f"plume-{prefix}-{secret}", _key(document)


def find_key(store: Store, text: str) -> Key | None:
    """The key that `text` is; None when it is none, was revoked, or has expired."""
    match = _FORM.fullmatch(text)
    prefix, secret = match.groups() if match else ("0" * 16, "")
    try:
        document = store.tenant(_TENANT).get(_KIND, prefix)
        body: dict[str, Any] = document.body
    except NotFound:
        document, body = None, _NOBODY
    right = hmac.compare_digest(_hash(bytes.fromhex(body["salt"]), secret), bytes.fromhex(body["hash"]))
    return _key(document) if document and right and not body["revoked"] else None


def list_keys(store: Store, tenant: str | None = None) -> tuple[Key, ...]:
    """Newest first, revoked ones included, expired ones not; of one tenant, or of all for who runs the store."""
    keys = map(_key, store.tenant(_TENANT).documents(_KIND, limit=MANY))
    return tuple(key for key in keys if tenant is None or key.tenant == tenant)


def revoke_key(store: Store, prefix: str, *, tenant: str | None = None, who: str = audit.PROGRAM) -> Key:
    """From now on it opens nothing. Raises NotFound for a prefix that `tenant`, if given, has no key of."""
    kept = store.tenant(_TENANT)
    missing = NotFound(f"there is no key {shown(prefix)}", "list the keys to see their prefixes")
    try:
        document = kept.get(_KIND, prefix)
    except NotFound:
        raise missing from None
    if tenant is not None and document.body["tenant"] != tenant:
        raise missing
    ttl = None if document.expires_at is None else document.expires_at - document.updated_at
    changed = {**document.body, "revoked": True}
    owner = document.body["tenant"]
    revoked = kept.put(_KIND, prefix, changed, at=document.revision, ttl=ttl, user=owner)
    audit.record(store, "revoke_key", who=who, tenant=owner)
    return _key(revoked)


def erase_keys(store: Store, tenant: str) -> int:
    """Of a tenant, revoked and expired ones included. Gives how many there were."""
    kept = store.tenant(_TENANT)
    unnamed = [key for key in list_keys(store, tenant) if kept.get(_KIND, key.prefix).user is None]
    for key in unnamed:  # made when stores did not know yet whom a document is about
        kept.discard(_KIND, key.prefix)
    return len(unnamed) + kept.erase(tenant).documents


def _hash(salt: bytes, secret: str) -> bytes:
    return hmac.digest(salt, secret.encode(), hashlib.sha256)


def _key(document: Document) -> Key:
    body = document.body
    return Key(
        document.id,
        body["tenant"],
        body["name"],
        tuple(body["scopes"]),
        document.created_at,
        document.expires_at,
        body["revoked"],
    )
