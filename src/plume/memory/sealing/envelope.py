"""What lies in a row of a sealed store: a form, the id of a key, a nonce, and the body encrypted by AES-256-GCM.

The associated data is the head of the envelope and the place of the row: its tenant, its names, its position or
revision. So a body opens nowhere but where it was sealed. The form's byte, 1, begins no JSON text: a plain body in
a sealed store is recognised, and so is a sealed one in a plain store.

Each conversation and each document is sealed with a key of its own, derived from the person's, and no key seals
2^32 bodies: that is how far NIST SP 800-38D (8.3) trusts nonces of 96 random bits.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from plume.errors import PlumeError
from plume.memory.sealing.master import expand
from plume.memory.sealing.seal import FORM, Damaged, Section

KEY_ID = 16
HEAD = len(FORM) + KEY_ID
_NONCE = 12
_BODY = HEAD + _NONCE
_MOST = 2**31  # bodies of one kind in one conversation or document


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key of one person, by the id that envelopes name it with."""

    id: bytes
    secret: bytes = field(repr=False)

    def at(self, section: Section) -> Cipher:
        head, encoded = FORM + self.id, joined(section.what, section.tenant, *section.names)
        return Cipher(head, head + encoded, section, AESGCM(expand(self.secret, encoded)))


@dataclass(frozen=True, slots=True)
class Cipher:
    """Seals and opens the bodies of one section. `place` is what their associated data has in common."""

    head: bytes
    place: bytes
    section: Section
    key: AESGCM = field(repr=False)

    def seal(self, number: int, name: str, body: bytes) -> bytes:
        if number >= _MOST:
            raise PlumeError(f"{self.section} has had {_MOST} bodies: no more are sealed with one key")
        nonce = secrets.token_bytes(_NONCE)
        return b"".join((self.head, nonce, self.key.encrypt(nonce, body, self._place(number, name))))

    def open(self, number: int, name: str, raw: bytes) -> bytes:
        try:
            return self.key.decrypt(raw[HEAD:_BODY], raw[_BODY:], self._place(number, name))
        except (InvalidTag, ValueError):  # the latter for what is shorter than a nonce
            hint = "restore it from a backup; plume conversations verify finds every such row"
            raise Damaged(f"{self.section.at(number)}: it was changed, cut short, or belongs elsewhere", hint) from None

    def _place(self, number: int, name: str) -> bytes:
        return self.place + number.to_bytes(8, "big") + name.encode("utf-8")


def joined(*parts: str | bytes) -> bytes:
    """No two lists of parts give the same bytes."""
    raws = [part.encode("utf-8") if isinstance(part, str) else part for part in parts]
    return b"".join(piece for raw in raws for piece in (len(raw).to_bytes(4, "big"), raw))
