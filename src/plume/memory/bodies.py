"""Messages, metadata and documents of one tenant on their way into rows and out of them: the place where no store can
forget to seal or to open.

What goes out needs `keys`: what the store holds of the person's keys at that moment, nothing where nothing is sealed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plume.memory.records import messages_of
from plume.memory.sealing.seal import KEPT, PLAIN, Body, Sealing, Section
from plume.types import Message


@dataclass(frozen=True, slots=True)
class Bodies:
    sealing: Sealing
    tenant: str

    def messages(self, id: str, bodies: Sequence[Body]) -> list[Message]:
        """Each with its position and id."""
        return messages_of(self.sealing.open(messages_section(self.tenant, id), bodies))

    def metadata(self, id: str, user: str | None, raw: bytes) -> Any:
        return self._json(metadata_section(self.tenant, id), 0, user, raw)

    def document(self, kind: str, id: str, revision: int, user: str | None, raw: bytes) -> Any:
        return self._json(document_section(self.tenant, kind, id), revision, user, raw)

    def vectors(self, id: str, raws: Mapping[int, bytes]) -> dict[int, bytes]:
        """By position."""
        opened = self.sealing.open(vectors_section(self.tenant, id), [(place, "", raw) for place, raw in raws.items()])
        return dict(zip(raws, opened, strict=True))

    def sealed_vectors(self, keys: bytes, user: str | None, id: str, vectors: Mapping[int, bytes]) -> dict[int, bytes]:
        cipher = self.sealing.cipher(keys, user, vectors_section(self.tenant, id))
        return {place: cipher.seal(place, "", bytes(raw)) for place, raw in vectors.items()}

    def sealed_messages(self, keys: bytes, user: str | None, id: str, bodies: Sequence[Body]) -> list[bytes]:
        cipher = self.sealing.cipher(keys, user, messages_section(self.tenant, id))
        return [cipher.seal(position, name, body) for position, name, body in bodies]

    def sealed_metadata(self, keys: bytes, user: str | None, id: str, body: bytes) -> bytes:
        return self.sealing.cipher(keys, user, metadata_section(self.tenant, id)).seal(0, user or "", body)

    def sealed_document(self, keys: bytes, user: str | None, kind: str, id: str, revision: int, body: bytes) -> bytes:
        cipher = self.sealing.cipher(keys, user, document_section(self.tenant, kind, id))
        return cipher.seal(revision, user or "", body)

    def _json(self, section: Section, number: int, user: str | None, raw: bytes) -> Any:
        return json.loads(self.sealing.open(section, [(number, user or "", raw)])[0])


def bodies_of(sealing: Sealing, tenant: str) -> Bodies:
    """Keys and the mark lie plain: they are what opens the others."""
    return Bodies(PLAIN if tenant == KEPT else sealing, tenant)


def messages_section(tenant: str, id: str) -> Section:
    return Section("conversation", tenant, (id,))


def vectors_section(tenant: str, id: str) -> Section:
    return Section("the vectors of conversation", tenant, (id,))


def metadata_section(tenant: str, id: str) -> Section:
    return Section("the metadata of conversation", tenant, (id,))


def document_section(tenant: str, kind: str, id: str) -> Section:
    return Section("document", tenant, (kind, id))
