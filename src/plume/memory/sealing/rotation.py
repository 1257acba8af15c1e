"""Replaces every key of a sealed store, or seals a plain one, while others read and write; and looks at every row.

First the mark of the store names the new master key: from then on it wraps the first key of every person.
Then each person gets a new data key: from then on writers use it. So a single walk over the rows meets every old body.
Last the old keys are taken away. Each step may be repeated: who is killed goes on where the mark says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from plume.data.sql import safe_name
from plume.errors import DocumentChanged, NotFound, PlumeError, UserError
from plume.memory import open_store
from plume.memory.bodies import document_section, messages_section, metadata_section, vectors_section
from plume.memory.records import json_bytes
from plume.memory.rows import Change, RawConversation, RawDocument, RawMessage
from plume.memory.sealing.envelope import Cipher
from plume.memory.sealing.keyring import Keyring, Wrapped, keys_body, parse_keys, sealed_for
from plume.memory.sealing.mark import SEAL, Mark, NotSealed, check, parse_mark, proven
from plume.memory.sealing.master import KEY, KEY_FILE, MasterKey
from plume.memory.sealing.seal import FORM, KEPT, MARK, Damaged, KeyGone, Section
from plume.memory.sealing.verify import Fault, Walked, all_tenants
from plume.memory.store import MANY, Document, Store, Tenant


def open_to_seal(url: str, masters: Sequence[MasterKey]) -> Store:
    """A store that holds plain bodies, marked so that `rotate` seals them; one that is sealed already as it is."""
    if not masters:
        raise UserError(f"{safe_name(url)}: there is no key to seal it with", f"set {KEY}, or {KEY_FILE}")
    try:
        return open_store(url, keys=masters)
    except NotSealed:
        mark = proven(Mark("sealing", 1, masters[0].id, {}), masters[:1])
        with open_store(url) as store, suppress(DocumentChanged):
            store.tenant(KEPT).put(*MARK, mark.body(), at=0)
    return open_store(url, keys=masters)


def rotate(store: Store, name: str, masters: Sequence[MasterKey]) -> Iterator[Walked | Fault]:
    """Seals everything with new keys under the first of `masters`; the others are retired at the end.

    Each Fault is a body that could not be opened. Where there is one, the old keys stay.
    """
    ring = store.sealing
    if not isinstance(ring, Keyring):
        raise UserError(f"{name}: the store is not sealed", f"seal it: {SEAL}")
    kept = store.tenant(KEPT)
    mark = _begin(kept, name, masters)
    tenants = sorted({*all_tenants(store), *kept.kinds()} - {KEPT})  # of some there are only keys
    total, done, faults = sum(store.rows(tenant).size() for tenant in tenants), 0, 0
    for tenant in tenants:
        for document in _persons(kept, tenant):
            _renew(kept, ring, mark, tenant, document)
        before = faults
        for step in _Walk(store, ring, kept, mark, tenant).steps():
            if isinstance(step, Fault):
                faults += 1
                yield step
            else:
                done += 1
                yield Walked(tenant, done, max(done, total), step)
        if faults == before:
            for document in _persons(kept, tenant):
                _retire(kept, mark, tenant, document)
    if faults:
        hint = "delete or restore them, then run it again; until then the old keys are needed, too"
        raise PlumeError(f"{name}: {faults} bodies cannot be opened, so the old keys stay in use", hint)
    _end(kept, masters)


# --- the mark and the persons -----------------------------------------------------------------------


def _begin(kept: Tenant, name: str, masters: Sequence[MasterKey]) -> Mark:
    """The mark under which this rotation runs: the one that was interrupted, or a new one."""
    while True:
        document = kept.get(*MARK)
        old = parse_mark(document.body)
        check(old, name, masters)
        if old.state != "sealed":
            if old.current != masters[0].id:
                hint = f"give it first, finish with it, and then replace it by key {masters[0].id}"
                raise UserError(f"{name}: a rotation to key {old.current} was interrupted", hint)
            return old
        if masters[0].id in old.retired:
            raise UserError(f"{name}: key {masters[0].id} was retired", "make a new one: openssl rand -hex 32")
        used = [key for key in masters if key.id in old.proofs or key == masters[0]]
        mark = proven(replace(old, state="rotating", rotation=old.rotation + 1, current=masters[0].id), used)
        with suppress(DocumentChanged):
            kept.put(*MARK, mark.body(), at=document.revision)
            return mark


def _end(kept: Tenant, masters: Sequence[MasterKey]) -> None:
    document = kept.get(*MARK)
    old = parse_mark(document.body)
    if old.state == "sealed":  # another process has come to the end of the same rotation
        return
    retired = (*old.retired, *(id for id in old.proofs if id != old.current))
    mark = proven(replace(old, state="sealed", retired=retired), [key for key in masters if key.id == old.current])
    kept.put(*MARK, mark.body(), at=document.revision)


def _persons(kept: Tenant, tenant: str) -> tuple[Document, ...]:
    return kept.documents(tenant, limit=MANY)


def _renew(kept: Tenant, ring: Keyring, mark: Mark, tenant: str, document: Document) -> None:
    """From now on writers seal with a key of this rotation, or of a later one."""

    def renewed(user: str | None, keys: list[Wrapped]) -> list[Wrapped]:
        return keys if keys[0].rotation >= mark.rotation else [ring.new_key(tenant, user, mark), *keys]

    _change(kept, tenant, document, renewed)


def _retire(kept: Tenant, mark: Mark, tenant: str, document: Document) -> None:
    _change(kept, tenant, document, lambda _, keys: [key for key in keys if key.rotation >= mark.rotation])


def _change(
    kept: Tenant, tenant: str, document: Document, to: Callable[[str | None, list[Wrapped]], list[Wrapped]]
) -> None:
    """Until nobody else changes it at the same moment; a person whose keys were destroyed has none to change."""
    while True:
        user, keys = parse_keys(json_bytes(document.body, "keys"))
        wanted = to(user, keys)
        if wanted == keys:
            return
        with suppress(DocumentChanged):
            kept.put(tenant, document.id, keys_body(user, wanted), at=document.revision)
            return
        try:
            document = kept.get(tenant, document.id)
        except NotFound:
            return


# --- the walk ---------------------------------------------------------------------------------------


class _Walk:
    """Seals everything of one tenant with the newest key of the person that it belongs to."""

    def __init__(self, store: Store, ring: Keyring, kept: Tenant, mark: Mark, tenant: str) -> None:
        self._rows, self._ring, self._kept, self._mark, self._tenant = store.rows(tenant), ring, kept, mark, tenant

    def steps(self) -> Iterator[int | Fault]:
        """For each conversation and document its faults, then how many of its bodies were sealed anew."""
        last: str | None = None
        while page := self._rows.conversations(last):
            last = page[-1].id
            for one in page:
                faults: list[Fault] = []
                sealed = self._metadata(one, faults) + self._messages(one, faults)
                yield from faults
                yield sealed
        behind: tuple[str, str] | None = None
        while documents := self._rows.documents(behind):
            behind = documents[-1].kind, documents[-1].id
            for document in documents:
                faults = []
                sealed = self._document(document, faults)
                yield from faults
                yield sealed

    def _metadata(self, one: RawConversation, faults: list[Fault]) -> int:
        cipher = self._cipher(one.user, metadata_section(self._tenant, one.id))
        body = self._again(cipher, 0, one.user or "", one.body, faults)
        if body != one.body:
            self._rows.replace_conversation(one, body)
        return body != one.body

    def _document(self, one: RawDocument, faults: list[Fault]) -> int:
        cipher = self._cipher(one.user, document_section(self._tenant, one.kind, one.id))
        body = self._again(cipher, one.revision, one.user or "", one.body, faults)
        if body != one.body:
            self._rows.replace_document(one, body)
        return body != one.body

    def _messages(self, one: RawConversation, faults: list[Fault]) -> int:
        cipher = self._cipher(one.user, messages_section(self._tenant, one.id))
        vectors = self._cipher(one.user, vectors_section(self._tenant, one.id))
        sealed, last = 0, -1
        while page := self._rows.messages(one.id, last):
            last = page[-1].position
            changes = [Change(old, self._message(old, cipher, vectors, faults)) for old in page]
            changed = [change for change in changes if change.old != change.new]
            if changed:
                self._rows.replace_messages(one.id, changed)
            sealed += sum(change.old.body != change.new.body for change in changed)
        return sealed

    def _message(self, old: RawMessage, cipher: Cipher, vectors: Cipher, faults: list[Fault]) -> RawMessage:
        vector = None if old.vector is None else self._again(vectors, old.position, "", old.vector, faults)
        return old._replace(body=self._again(cipher, old.position, old.id, old.body, faults), vector=vector)

    def _again(self, cipher: Cipher, number: int, name: str, raw: bytes, faults: list[Fault]) -> bytes:
        """Sealed by `cipher`; as it was when it is so already, or cannot be opened. What was sealed with a key that
        was destroyed is no fault: nobody shall open it."""
        if raw.startswith(cipher.head) or self._anew_for_another(cipher, raw):
            return raw
        try:
            return cipher.seal(number, name, self._ring.open(cipher.section, [(number, name, raw)])[0])
        except Damaged as error:
            faults.append(Fault(cipher.section, number, error.message))
        except KeyGone:
            pass
        return raw

    def _anew_for_another(self, cipher: Cipher, raw: bytes) -> bool:
        """Has its conversation or document been made anew about somebody else since it was looked up? Then it was
        sealed with a key of this rotation, or of a later one."""
        name = sealed_for(raw)
        if not raw.startswith(FORM) or name == sealed_for(cipher.head):
            return False
        try:
            _, keys = parse_keys(json_bytes(self._kept.get(self._tenant, name).body, "keys"))
        except NotFound:
            return False
        return any(raw.startswith(FORM + key.id) and key.rotation >= self._mark.rotation for key in keys)

    def _cipher(self, user: str | None, section: Section) -> Cipher:
        """By the person's newest key, made now if there is none: bodies are plain, or left of a key destroyed."""
        name = self._ring.person(self._tenant, user)
        while True:
            try:
                body = self._kept.get(self._tenant, name).body
            except NotFound:
                body = keys_body(user, [self._ring.new_key(self._tenant, user, self._mark)])
                try:
                    self._kept.put(self._tenant, name, body, at=0)
                except DocumentChanged:
                    continue
            return self._ring.cipher(json_bytes(body, "keys"), user, section)
