"""Recall searched in this process's memory: it works on every store, sealed or not."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from plume.memory.recall import approximate
from plume.memory.recall.approximate import Builder, exact
from plume.memory.recall.corpus import Corpus, Rows
from plume.memory.recall.places import Place, Within
from plume.memory.recall.vectors import Embedder, Matrix, wrong_width
from plume.memory.store import Store

_TENANTS = 32  # in memory at once, those asked for last


@dataclass(slots=True)
class Kept:
    """Of one tenant."""

    corpus: Corpus
    builder: Builder = field(default_factory=Builder)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def places(self, rows: list[int]) -> list[Place]:
        return [place for row in rows if (place := self.corpus.place(row)) is not None]


class Memory:
    """Above `approximate_above` vectors of a tenant an approximate index is used, if usearch is installed and finds
    enough."""

    name = "memory"

    def __init__(self, store: Store, embedder: Embedder | None, approximate_above: int) -> None:
        self._store, self._embedder, self._above = store, embedder, approximate_above
        self._tenants: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def rankings(self, tenant: str, question: str, within: Within, count: int) -> list[list[Place]]:
        kept = self.kept(tenant)
        with kept.lock:
            kept.corpus.refresh()
            allowed = kept.corpus.rows(within)
            found = [kept.corpus.best_texts(question, allowed, count)]
            if self._embedder is not None and question.strip():
                found.append(self._near(kept, self._embedder.unit([question])[0], allowed, count).tolist())
            return [kept.places(rows) for rows in found]

    def nearest(self, tenant: str, vector: Matrix, count: int) -> list[tuple[Place, float]]:
        kept = self.kept(tenant)
        with kept.lock:
            kept.corpus.refresh()
            rows = self._near(kept, vector, None, count)
            scores = kept.corpus.matrix[rows] @ vector
            places = map(kept.corpus.place, rows.tolist())
            return [(place, score) for place, score in zip(places, scores.tolist(), strict=True) if place is not None]

    def forget(self, tenant: str) -> None:
        with self._lock:
            self._tenants.pop(tenant, None)

    def kept(self, tenant: str) -> Kept:
        with self._lock:
            kept = self._tenants.get(tenant)
            if kept is None:
                kept = self._tenants[tenant] = Kept(Corpus(self._store.tenant(tenant), self._embedder))
            self._tenants.move_to_end(tenant)
            if len(self._tenants) > _TENANTS:
                self._tenants.popitem(last=False)
            return kept

    def _near(self, kept: Kept, question: Matrix, allowed: Rows | None, count: int) -> Rows:
        """Exactly, or approximately with what came after the index exactly."""
        matrix = kept.corpus.matrix
        if not len(matrix) or not count or not question.any():
            return np.zeros(0, np.int64)
        if question.shape != matrix.shape[1:]:
            raise wrong_width(question, matrix.shape[1:])
        if allowed is not None:
            return allowed[exact(matrix[allowed], question, count)]
        index = None
        if len(matrix) > self._above and approximate.available():
            index = kept.builder.ready(matrix, kept.corpus.packed)
        if index is None:
            return exact(matrix, question, count, kept.corpus.gone)
        rows = np.concatenate([index.nearest(question, count), np.arange(index.rows, len(matrix))])
        return rows[exact(matrix[rows], question, count)]
