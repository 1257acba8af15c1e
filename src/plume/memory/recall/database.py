"""Recall searched by the database itself: nothing is kept in this process's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from plume.errors import NotFound
from plume.memory.recall.places import Entry, Followed, Place, Within
from plume.memory.recall.spoken import BATCH, embedded, spoken
from plume.memory.recall.vectors import Embedder, Matrix, pgvector_text, wrong_width
from plume.memory.recall.words import folded_words
from plume.memory.store import Conversation, Item, Store, Tenant, bounds, is_name

if TYPE_CHECKING:
    from plume.memory.sql.search_tables import SearchTables

MOST_WORDS = 64  # of a question


class Database:
    """Raises UserError, with the reason, where the store's database cannot search."""

    name = "database"

    def __init__(self, store: Store, embedder: Embedder | None) -> None:
        self._store, self._embedder = store, embedder
        self._tables: SearchTables = store.search_tables()

    def rankings(self, tenant: str, question: str, within: Within, count: int) -> list[list[Place]]:
        self._follow(tenant)
        clean = _clean(within)
        if clean is None or not count:
            return []
        words = list(dict.fromkeys(folded_words(question)))[:MOST_WORDS]
        found = [self._tables.worded(tenant, clean, words, count)] if words else []
        if self._embedder is not None and question.strip():
            vector = self._embedder.unit([question])[0]
            found.append([place for place, _ in self._near(tenant, self._embedder, vector, clean, count)])
        return found

    def nearest(self, tenant: str, vector: Matrix, count: int) -> list[tuple[Place, float]]:
        self._follow(tenant)
        if self._embedder is None:
            return []
        width = self._tables.width(tenant, self._embedder.model)
        if width is None:
            return []
        if vector.shape != (width,):
            raise wrong_width(vector, (width,))
        return self._near(tenant, self._embedder, vector, Within(), count)

    def forget(self, tenant: str) -> None:
        """There is nothing."""

    def _near(
        self, tenant: str, embedder: Embedder, vector: Matrix, within: Within, count: int
    ) -> list[tuple[Place, float]]:
        return (
            self._tables.nearest(tenant, within, embedder.model, pgvector_text(vector), count) if vector.any() else []
        )

    def _follow(self, tenant: str) -> None:
        """Be as the store is now. What goes, the database removes itself."""
        model = self._embedder.model if self._embedder else None
        reached = self._store.tenant(tenant)
        for was in self._tables.behind(tenant, model):
            try:
                self._take_up(reached, was, model)
            except NotFound:  # it went meanwhile
                continue

    def _take_up(self, tenant: Tenant, was: Followed, model: str | None) -> None:
        """What is new in a conversation, or all of it where the vectors are of another model."""
        after = (was.head if model in (None, was.model) else 0) - 1
        stored = tenant.vectors(was.conversation, after=after) if self._embedder else {}
        while True:
            read = tenant.read(was.conversation, after=after, first=BATCH)
            last = len(read.items) < BATCH
            now = was._replace(head=read.head if last else read.items[-1].position + 1, model=model)
            entries = self._entries(tenant, read, spoken(read.items), stored)
            if not self._tables.follow(tenant.name, read, was, now, entries) or last:
                return
            was, after = now, now.head - 1

    def _entries(
        self, tenant: Tenant, read: Conversation, items: Sequence[Item], stored: Mapping[int, bytes]
    ) -> list[Entry]:
        vectors: Sequence[Matrix | None] = [None] * len(items)
        if self._embedder is not None and items:
            vectors = list(embedded(tenant, self._embedder, read, items, stored))
        return [
            Entry(item.position, folded_words(item.message.content), None if vector is None else pgvector_text(vector))
            for item, vector in zip(items, vectors, strict=True)
        ]


def _clean(within: Within) -> Within | None:
    """As the database takes it; None where nothing can stand."""
    _, before, _ = bounds(None, within.before, None, None)
    names = (within.conversation, within.user)
    return within._replace(before=before) if all(name is None or is_name(name) for name in names) else None
