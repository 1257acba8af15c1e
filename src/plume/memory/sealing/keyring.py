"""The keys of a sealed store: one data key for each person, that is for a tenant and a user, wrapped by a master key.

They lie in the store itself, in a document for each person. A reader remembers what it has unwrapped for FRESH seconds;
a writer is told by the store what holds at the moment of the write.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from plume.errors import NotFound, PlumeError, shown
from plume.memory.records import json_bytes
from plume.memory.sealing.envelope import HEAD, Cipher, DataKey, joined
from plume.memory.sealing.mark import Mark, parse_mark
from plume.memory.sealing.master import MasterKey
from plume.memory.sealing.seal import FORM, KEPT, Body, Damaged, KeyGone, Section
from plume.memory.store import MANY, Tenant

FRESH = 10.0
REMEMBERED = 10_000  # persons; about 10 MB
_TAG = 12  # bytes of a key's id that say whose it is; the others tell the keys of one person apart
_SERIAL = 4
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key as it lies in the store. `rotation` counts how often all keys were replaced."""

    id: bytes
    rotation: int
    master: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Person:
    """What is known of one person's keys: the newest, and all by their ids."""

    raw: bytes
    newest: DataKey
    keys: dict[bytes, DataKey]
    read_at: float


class Keyring:
    """Seals and opens with data keys. `accepts_plain` while a plain store is being sealed: its old bodies are read."""

    active = True

    def __init__(self, masters: Sequence[MasterKey], reach: Callable[[str], Tenant], *, accepts_plain: bool) -> None:
        self._masters, self._reach, self.accepts_plain = {key.id: key for key in masters}, reach, accepts_plain
        self._persons: dict[str, _Person] = {}

    def person(self, tenant: str, user: str | None) -> str:
        whose = (tenant,) if user is None else (tenant, user)
        return hashlib.sha256(joined("plume person", *whose)).digest()[:_TAG].hex()

    def first_keys(self, tenant: str, user: str | None, mark: bytes | None) -> bytes:
        return json_bytes(keys_body(user, [self.new_key(tenant, user, self.mark(mark))]), "keys")

    def cipher(self, keys: bytes, user: str | None, section: Section) -> Cipher:
        name = self.person(section.tenant, user)
        return self._remembered(name, keys, section.tenant).newest.at(section)

    def open(self, section: Section, bodies: Sequence[Body]) -> list[bytes]:
        ciphers: dict[bytes, Cipher] = {}
        opened = []
        for number, name, raw in bodies:
            cipher = ciphers.get(raw[:HEAD])
            if cipher is None:
                if raw[:1] != FORM:
                    opened.append(self._plain(section, number, raw))
                    continue
                cipher = ciphers[raw[:HEAD]] = self._key(section, number, raw[len(FORM) : HEAD]).at(section)
            opened.append(cipher.open(number, name, raw))
        return opened

    def destroy(self, tenant: str, user: str | None) -> bool:
        kept, found = self._reach(KEPT), False
        listed = [one.id for one in kept.documents(tenant, limit=MANY)] if user is None else [self.person(tenant, user)]
        for name in listed:
            self._persons.pop(name, None)
            with suppress(NotFound):
                kept.discard(tenant, name)
                found = True
        return found

    def mark(self, raw: bytes | None) -> Mark:
        """What the mark of the store says now. Raises PlumeError when the keys of this process have been retired."""
        if raw is None:
            raise PlumeError("the mark of this sealed store is gone", "restore the store from a backup")
        mark = parse_mark(json.loads(raw))
        if mark.current not in self._masters:
            raise _retired(mark.current)
        mark.prove(self._masters.values())
        return mark

    def new_key(self, tenant: str, user: str | None, mark: Mark) -> Wrapped:
        id = bytes.fromhex(self.person(tenant, user)) + secrets.token_bytes(_SERIAL)
        nonce, master = secrets.token_bytes(_NONCE), self._masters[mark.current]
        sealed = AESGCM(master.wrap).encrypt(nonce, secrets.token_bytes(32), _bound(tenant, user, id, mark.rotation))
        return Wrapped(id, mark.rotation, master.id, nonce + sealed)

    def _plain(self, section: Section, number: int, raw: bytes) -> bytes:
        if self.accepts_plain:
            return raw
        hint = "somebody wrote past the key; plume conversations verify finds every such row"
        raise Damaged(f"{section.at(number)}: the body is plain, in a store that is sealed", hint)

    def _key(self, section: Section, number: int, id: bytes) -> DataKey:
        name, known = id[:_TAG].hex(), self._persons.get(id[:_TAG].hex())
        if known is None or id not in known.keys or time.monotonic() > known.read_at + FRESH:
            try:
                document = self._reach(KEPT).get(section.tenant, name)
            except NotFound:
                self._persons.pop(name, None)
                raise KeyGone(f"{section.at(number)}: the key that sealed it was destroyed") from None
            known = self._remembered(name, json_bytes(document.body, "keys"), section.tenant)
        if id not in known.keys:
            raise KeyGone(f"{section.at(number)}: the key that sealed it was retired")
        return known.keys[id]

    def _remembered(self, name: str, raw: bytes, tenant: str) -> _Person:
        """The person's keys, unwrapped anew only when they are not what they were."""
        known = self._persons.get(name)
        if known is None or known.raw != raw:
            user, wrapped = parse_keys(raw)
            if self.person(tenant, user) != name:
                raise Damaged(f"a stored key of {shown(tenant)} is not where it belongs", "restore it from a backup")
            keys = {one.id: self._unwrapped(tenant, user, one) for one in wrapped}
            known = _Person(raw, keys[wrapped[0].id], keys, 0)
        known = _Person(known.raw, known.newest, known.keys, time.monotonic())
        if len(self._persons) >= REMEMBERED:
            self._persons.clear()
        self._persons[name] = known
        return known

    def _unwrapped(self, tenant: str, user: str | None, one: Wrapped) -> DataKey:
        if one.master not in self._masters:
            raise _retired(one.master)
        nonce, sealed = one.secret[:_NONCE], one.secret[_NONCE:]
        try:
            secret = AESGCM(self._masters[one.master].wrap).decrypt(
                nonce, sealed, _bound(tenant, user, one.id, one.rotation)
            )
        except InvalidTag:
            whose = shown(tenant) if user is None else f"{shown(user)} of {shown(tenant)}"
            raise Damaged(f"the stored key of {whose} was changed", "restore it from a backup") from None
        return DataKey(one.id, secret)


def sealed_for(raw: bytes) -> str:
    """The name of the person with whose key a body was sealed."""
    return raw[len(FORM) : len(FORM) + _TAG].hex()


def parse_keys(raw: bytes) -> tuple[str | None, list[Wrapped]]:
    """Whose keys they are, and the keys, newest first. Raises PlumeError for another form."""
    try:
        body: dict[str, Any] = json.loads(raw)
        if body["form"] != 1 or not body["keys"]:
            raise ValueError
        return body["user"], [
            Wrapped(bytes.fromhex(one["id"]), int(one["rotation"]), str(one["master"]), bytes.fromhex(one["secret"]))
            for one in body["keys"]
        ]
    except (ValueError, LookupError, TypeError):
        hint = "restore it from a backup, or open the store with the version of Plume that wrote it"
        raise PlumeError("a stored data key cannot be read", hint) from None


def keys_body(user: str | None, keys: Sequence[Wrapped]) -> dict[str, Any]:
    listed = [
        {"id": one.id.hex(), "rotation": one.rotation, "master": one.master, "secret": one.secret.hex()} for one in keys
    ]
    return {"form": 1, "user": user, "keys": listed}


def _bound(tenant: str, user: str | None, id: bytes, rotation: int) -> bytes:
    """A wrapped key opens only as the key of this person."""
    return joined("plume data key", id, str(rotation), tenant, *(() if user is None else (user,)))


def _retired(id: str) -> PlumeError:
    return PlumeError(f"the store is sealed with key {id} now, which was not given", "open it again with that key")
