"""The door that redacts, as `plume serve` and `plume chat` put it before a store."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from plume.errors import NotFound, UserError
from plume.memory.redacting import RedactingStore, RedactingTenant, Scope
from plume.memory.store import Store, Tenant
from plume.memory.vault import find_vault, has_vaults, read_key
from plume.redact import redaction

log = logging.getLogger("plume.serving")


def door(kinds: str | None, names: Path | None, scope: Scope | None = None) -> Callable[[Store], Store]:
    """What puts it there, if it is asked for. Raises UserError for kinds, names or a key that cannot be used."""
    if kinds is None and names is None:
        return lambda store: store
    wanted, key = redaction((kinds or "name").split(","), names), read_key()
    return lambda store: RedactingStore(store, wanted, key, scope)


def as_kept(tenant: Tenant, id: str, text: str) -> str:
    """A text as the conversation would keep it. Raises UserError for a vault that this door does not open.

    A conversation that was redacted does not go on in plain text: nobody would see that it does.
    """
    if isinstance(tenant, RedactingTenant):
        return tenant.redact(id, text)
    try:
        find_vault(tenant, id)
    except NotFound:
        return text
    hint = "say --redact as before: plume chat … --redact all"
    raise UserError(f"conversation {id} is kept redacted, and would go on in plain text", hint)


def check_vaults(store: Store, *, leave: bool) -> None:
    """Raises UserError for a store with vaults that this door does not open, or that has no such door any more. Where
    they are to be left, the server's log says what that means."""
    try:
        if isinstance(store, RedactingStore):
            store.check_key()
        elif has_vaults(store):
            raise UserError("this store has conversations that are kept redacted, and would go on in plain text")
    except UserError as error:
        if not leave:
            remedy = error.hint or "say --redact as before"
            raise type(error)(error.message, f"{remedy}, or --leave-vaults if that is meant") from None
        log.warning("%s: --leave-vaults", error.message)
