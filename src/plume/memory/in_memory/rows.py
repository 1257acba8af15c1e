"""What a tenant has in memory, as it lies there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from plume.memory.in_memory.tenant import InMemoryTenant
from plume.memory.rows import STEP, Change, RawConversation, RawDocument, RawMessage


class InMemoryRows:
    def __init__(self, tenant: InMemoryTenant, lock: threading.RLock) -> None:
        self._tenant, self._lock = tenant, lock

    def size(self) -> int:
        return len(self._tenant.kept) + len(self._tenant.documents_kept)

    def conversations(self, after: str | None) -> Sequence[RawConversation]:
        with self._lock:
            ids = sorted(id for id in self._tenant.kept if after is None or id > after)[:STEP]
            found = [self._tenant.kept[id] for id in ids]
            return [RawConversation(one.conversation.id, one.conversation.user, one.body) for one in found]

    def messages(self, id: str, after: int) -> Sequence[RawMessage]:
        with self._lock:
            kept = self._tenant.kept.get(id)
            rows = [] if kept is None else sorted((place, row) for place, row in kept.items.items() if place > after)
            vectors = {} if kept is None else kept.vectors
            return [RawMessage(place, row.id, row.body, vectors.get(place)) for place, row in rows[:STEP]]

    def documents(self, after: tuple[str, str] | None) -> Sequence[RawDocument]:
        with self._lock:
            names = sorted(name for name in self._tenant.documents_kept if after is None or name > after)[:STEP]
            found = [self._tenant.documents_kept[name] for name in names]
            return [RawDocument(one.kind, one.id, one.revision, one.user, one.body) for one in found]

    def replace_conversation(self, old: RawConversation, body: bytes) -> None:
        with self._lock:
            kept = self._tenant.kept.get(old.id)
            if kept is not None and kept.body == old.body:
                kept.body = body

    def replace_document(self, old: RawDocument, body: bytes) -> None:
        with self._lock:
            kept = self._tenant.documents_kept.get((old.kind, old.id))
            if kept is not None and kept.body == old.body:
                self._tenant.documents_kept[old.kind, old.id] = replace(kept, body=body)

    def replace_messages(self, id: str, changes: Sequence[Change]) -> None:
        with self._lock:
            kept = self._tenant.kept.get(id)
            if kept is None:
                return
            for old, new in changes:
                row = kept.items.get(old.position)
                if row is not None and row.body == old.body:
                    kept.items[old.position] = replace(row, body=new.body)
                if new.vector is not None and kept.vectors.get(old.position) == old.vector:
                    kept.vectors[old.position] = new.vector
