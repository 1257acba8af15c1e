"""A store whose door redacts: nothing is written to the store behind it before what is recognised has been taken out.

What was taken out of a conversation lies in its vault (see vault.py), which a resumed conversation opens to go on
with the same marks. Whoever opens the store behind it with the key can restore; nobody can without.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from plume.errors import DocumentChanged, NotFound
from plume.memory.records import message_bytes, metadata_bytes
from plume.memory.rows import Rows
from plume.memory.sealing.seal import Sealing
from plume.memory.store import (
    VAULT,
    Conversation,
    Counts,
    Document,
    Durability,
    Item,
    Line,
    Store,
    Tenant,
    checked_name,
    new_id,
    taken,
)
from plume.memory.vault import check_key, seal, unseal, vault_of
from plume.redact import Redaction, Redactor
from plume.types import Message

if TYPE_CHECKING:
    from plume.memory.sql.search_tables import SearchTables

Scope = Callable[[Tenant, str, str, Any], str | None]
"""Whose vault a document shares: from tenant, kind, id and body; None for a document that stays as it is."""

# Of documents, what says how they hang together: it is no text of a person, and must be found again as it is.
_LEFT = frozenset(
    {"id", "call_id", "conversation", "first_response_id", "model", "name", "object", "previous_response_id"}
    | {"role", "schema", "status", "tools", "type"}
)


class RedactingStore:
    """`key` seals the vaults. Of documents, those are redacted for which `scope` names a vault."""

    def __init__(self, store: Store, redaction: Redaction, key: bytes, scope: Scope | None = None) -> None:
        seal({}, key, "", "")  # a key that cannot be used is told now
        self._store, self._redaction, self._key, self._scope = store, redaction, key, scope

    def tenant(self, name: str) -> RedactingTenant:
        return RedactingTenant(self._store.tenant(name), self._redaction, self._key, self._scope)

    def tenants(self, *, after: str | None = None, limit: int = 100) -> tuple[str, ...]:
        return self._store.tenants(after=after, limit=limit)

    def check_key(self) -> None:
        """Raises WrongKey where the store has vaults, and none of them looks as if this door's key opened it."""
        check_key(self._store, self._key)

    @property
    def sealing(self) -> Sealing:
        return self._store.sealing

    def rows(self, tenant: str) -> Rows:
        return self._store.rows(tenant)

    def search_tables(self) -> SearchTables:
        return self._store.search_tables()

    def sweep(self, limit: int = 1000) -> Counts:
        return self._store.sweep(limit)

    def scrub(self) -> tuple[str, ...]:
        return self._store.scrub()

    def destroy_keys(self, tenant: str, user: str | None) -> bool:
        return self._store.destroy_keys(tenant, user)

    def note(self, entry: Mapping[str, Any]) -> Line:
        return self._store.note(entry)

    def trail(self, *, after: int | None = None, limit: int = 100) -> tuple[Line, ...]:
        return self._store.trail(after=after, limit=limit)

    def durability(self) -> Durability:
        return self._store.durability()

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_vault(tenant: Tenant, id: str) -> None:
    """Raises WrongKey for a conversation that cannot go on through the door of its tenant, which may be none."""
    if isinstance(tenant, RedactingTenant):
        tenant.redact(id, "")


class RedactingTenant:
    def __init__(self, tenant: Tenant, redaction: Redaction, key: bytes, scope: Scope | None) -> None:
        self._tenant, self._redaction, self._key, self._scope = tenant, redaction, key, scope

    @property
    def name(self) -> str:
        return self._tenant.name

    def redact(self, id: str, text: str) -> str:
        """The text as this conversation would keep it; nothing is written. Raises WrongKey."""
        return Redactor(self._redaction, self._values(id, self._vault(id))).text(text)

    def create(
        self,
        id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Conversation:
        """What is taken out of the metadata is in the vault before there is a conversation, which is made in one write:
        whatever fails, none is left without what was asked for."""
        text = metadata_bytes(metadata).decode("utf-8")  # refused before anything is made
        if not metadata:
            return self._tenant.create(id, ttl=ttl, user=user)
        id = new_id("conv") if id is None else checked_name("conversation", id)
        with suppress(NotFound):
            self._tenant.read(id, last=0)
            raise taken(id)

        def mark(redactor: Redactor) -> str:
            return redactor.text(text)

        lives = self._tenant.lifetime() if ttl is None else ttl
        marked = self._written(id, mark, lambda _: lives, user)
        try:
            made = self._tenant.create(id, metadata=json.loads(marked), ttl=ttl, user=user)
        except BaseException:
            with suppress(NotFound):
                self._there(id)
            raise
        # Its end is known now; and where an expired conversation had the id, its vault went with it.
        self._in(made, mark, renewed=made.expires_at is not None)
        return made

    def append(
        self, id: str, messages: Sequence[Message], *, at: int | None = None, ids: Sequence[str] | None = None
    ) -> tuple[Item, ...]:
        for message in messages:
            message_bytes(message)  # what is no message is refused before it is read
        whose = self._tenant.read(id, last=0)
        marked = self._in(whose, lambda redactor: [redactor.message(message) for message in messages])
        return self._tenant.append(id, marked, at=at, ids=ids)

    def update(self, id: str, metadata: Mapping[str, Any]) -> Conversation:
        text = metadata_bytes(metadata).decode("utf-8")
        marked = self._in(self._tenant.read(id, last=0), lambda redactor: redactor.text(text))
        return self._tenant.update(id, json.loads(marked))

    def put(
        self,
        kind: str,
        id: str,
        body: Any,
        *,
        at: int | None = None,
        ttl: float | None = None,
        user: str | None = None,
    ) -> Document:
        vault = self._scope(self._tenant, kind, id, body) if self._scope else None
        if vault is not None:
            body = {**self._marked(vault, lambda redactor: redactor.value(body, _LEFT), ttl, user), "vault": vault}
        return self._tenant.put(kind, id, body, at=at, ttl=ttl, user=user)

    def delete(self, id: str) -> None:
        self._tenant.delete(id)

    def index(self, conversation: Conversation, vectors: Mapping[int, bytes]) -> None:
        self._tenant.index(conversation, vectors)

    def vectors(self, id: str, *, after: int | None = None) -> Mapping[int, bytes]:
        return self._tenant.vectors(id, after=after)

    def lifetime(self) -> float | None:
        return self._tenant.lifetime()

    def set_lifetime(self, ttl: float | None) -> None:
        self._tenant.set_lifetime(ttl)

    def erase(self, user: str | None = None) -> Counts:
        """Vaults are documents about the same person: they go, too."""
        return self._tenant.erase(user)

    def read(
        self,
        id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        first: int | None = None,
        last: int | None = None,
    ) -> Conversation:
        return self._tenant.read(id, after=after, before=before, first=first, last=last)

    def item(self, id: str, item: str) -> Item:
        return self._tenant.item(id, item)

    def remove(self, id: str, items: Sequence[str]) -> Conversation:
        return self._tenant.remove(id, items)

    def conversations(
        self, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Conversation, ...]:
        return self._tenant.conversations(user=user, after=after, limit=limit)

    def get(self, kind: str, id: str) -> Document:
        return self._tenant.get(kind, id)

    def documents(
        self, kind: str, *, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> tuple[Document, ...]:
        return self._tenant.documents(kind, user=user, after=after, limit=limit)

    def kinds(self) -> tuple[str, ...]:
        return self._tenant.kinds()

    def discard(self, kind: str, id: str) -> None:
        self._tenant.discard(kind, id)

    def _marked(self, id: str, work: Callable[[Redactor], Any], ttl: float | None, user: str | None) -> Any:
        """For a document that shares the vault of a conversation, or of other documents."""
        try:
            whose = self._tenant.read(id, last=0)
        except NotFound:
            return self._written(id, work, lambda _: ttl, user, renewed=ttl is not None)
        return self._in(whose, work)

    def _in(self, whose: Conversation, work: Callable[[Redactor], Any], *, renewed: bool = False) -> Any:
        """The vault of a conversation is about the same person, and ends when it ends."""
        ends = whose.expires_at

        def until(now: float) -> float | None:
            return None if ends is None else ends - now

        made = self._written(whose.id, work, until, whose.user, renewed=renewed)
        self._there(whose.id)
        return made

    def _there(self, id: str) -> None:
        """Raises NotFound for a conversation that was deleted before its vault was written: nothing else would take
        that one away."""
        try:
            self._tenant.read(id, last=0)
        except NotFound:
            with suppress(NotFound):
                self._tenant.discard(VAULT, id)
            raise

    def _written(
        self,
        id: str,
        work: Callable[[Redactor], Any],
        ttl: Callable[[float], float | None],
        user: str | None,
        *,
        renewed: bool = False,
    ) -> Any:
        """What `work` makes, once the vault holds every value that it took out; of several writers, each goes on from
        what the one before it wrote. `ttl` says how long the vault lives from a time on."""
        while True:
            old = self._vault(id)
            known = self._values(id, old)
            redactor = Redactor(self._redaction, known)
            made = work(redactor)
            if redactor.values == known and (old is None or not renewed):
                return made
            body = seal(redactor.values, self._key, self.name, id).body()
            try:
                # The store's own time is known only from what it writes.
                put = self._tenant.put(VAULT, id, body, at=old.revision if old else 0, user=user)
                lives = ttl(put.updated_at)
                if lives is not None:
                    self._tenant.put(VAULT, id, body, at=put.revision, ttl=max(lives, 1e-6), user=user)
            except DocumentChanged:
                continue
            return made

    def _vault(self, id: str) -> Document | None:
        try:
            return self._tenant.get(VAULT, id)
        except NotFound:
            return None

    def _values(self, id: str, vault: Document | None) -> dict[str, str]:
        return {} if vault is None else unseal(vault_of(self.name, id, vault.body), self._key)
