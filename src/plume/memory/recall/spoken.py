"""What of a conversation can be found, and the vectors of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from plume.memory.recall.vectors import Embedder, Matrix, vector_bytes, vector_of
from plume.memory.store import Conversation, Item, Tenant

BATCH = 256  # texts to embed and keep at once
_ROLES = ("user", "assistant", "tool")


def spoken(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if item.message.role in _ROLES and item.message.content.strip()]


def embedded(
    tenant: Tenant, embedder: Embedder, conversation: Conversation, items: Sequence[Item], stored: Mapping[int, bytes]
) -> Matrix:
    """A row for each: those that are stored, and those that are missing, which are computed and stored."""
    found = [vector_of(embedder.model, stored.get(item.position, b"")) for item in items]
    missing = [place for place, vector in enumerate(found) if vector is None]
    if missing:
        made = embedder.unit([items[place].message.content for place in missing])
        for place, vector in zip(missing, made, strict=True):
            found[place] = vector
        new = {items[place].position: vector_bytes(embedder.model, made[n]) for n, place in enumerate(missing)}
        tenant.index(conversation, new)
    return np.stack([vector for vector in found if vector is not None])
