"""What was said before that belongs to a question: by meaning, by words, or both, within one tenant.

Everything is searched in this process's memory, so it works on every store, sealed or not. What is found is read from
the store before it is given, so nothing that was deleted or has expired is ever found, whatever is in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from plume.errors import NotFound, UserError
from plume.memory.recall import approximate
from plume.memory.recall.approximate import Builder, exact
from plume.memory.recall.corpus import Corpus, Rows
from plume.memory.recall.vectors import Embedder, Matrix
from plume.memory.store import Item, Store, page_size

APPROXIMATE_ABOVE = 200_000  # vectors of one tenant
_TENANTS = 32  # in memory at once, those asked for last
_DEEP = 5  # times as many as are wanted are taken of each ranking
_RANK = 60  # of reciprocal rank fusion: Cormack, Clarke and Büttcher (2009)


class Found(NamedTuple):
    """A message, where it stands, and how well it fits: comparable within one search only."""

    conversation: str
    item: Item
    score: float


@dataclass(slots=True)
class _Tenant:
    corpus: Corpus
    builder: Builder = field(default_factory=Builder)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Recall:
    """Searches of one store. Without an `embedder`, by words alone. Above `approximate_above` vectors of a tenant an
    approximate index is used, if usearch is installed and finds enough."""

    def __init__(
        self, store: Store, embedder: Embedder | None = None, *, approximate_above: int = APPROXIMATE_ABOVE
    ) -> None:
        self._store, self._embedder, self._above = store, embedder, approximate_above
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._lock = threading.Lock()

    def search(
        self,
        tenant: str,
        question: str,
        *,
        conversation: str | None = None,
        user: str | None = None,
        before: int | None = None,
        limit: int = 10,
    ) -> tuple[Found, ...]:
        """The messages that fit best, the best first: of one conversation, about one person, before a position.

        What has no vector yet gets one. Both rankings count alike (reciprocal rank fusion).
        """
        size, kept = page_size(limit), self._kept(tenant)
        with kept.lock:
            kept.corpus.refresh()
            allowed = kept.corpus.rows(conversation, user, before)
            scores: dict[int, float] = {}
            for ranking in self._rankings(kept, question, allowed, _DEEP * size):
                for rank, row in enumerate(ranking, 1):
                    scores[row] = scores.get(row, 0.0) + 1 / (_RANK + rank)
            best = sorted(scores, key=lambda row: (-scores[row], row))
            return self._read(tenant, kept.corpus, [(row, scores[row]) for row in best], size)

    def positions(
        self, tenant: str, conversation: str, question: str, *, before: int | None = None, limit: int = 4
    ) -> tuple[int, ...]:
        """Where the older messages stand that fit a question best: what a window may take up again."""
        found = self.search(tenant, question, conversation=conversation, before=before, limit=limit)
        return tuple(one.item.position for one in found)

    def nearest(self, tenant: str, question: Matrix, limit: int = 10) -> tuple[Found, ...]:
        """By a vector alone, the nearest first; `score` is the cosine."""
        size, kept = page_size(limit), self._kept(tenant)
        with kept.lock:
            kept.corpus.refresh()
            rows = self._near(kept, question, None, size)
            scores = kept.corpus.matrix[rows] @ question
            return self._read(tenant, kept.corpus, list(zip(rows.tolist(), scores.tolist(), strict=True)), size)

    def forget(self, tenant: str) -> None:
        """Let go of what is in memory of a tenant."""
        with self._lock:
            self._tenants.pop(tenant, None)

    def _kept(self, tenant: str) -> _Tenant:
        with self._lock:
            kept = self._tenants.get(tenant)
            if kept is None:
                kept = self._tenants[tenant] = _Tenant(Corpus(self._store.tenant(tenant), self._embedder))
            self._tenants.move_to_end(tenant)
            if len(self._tenants) > _TENANTS:
                self._tenants.popitem(last=False)
            return kept

    def _rankings(self, kept: _Tenant, question: str, allowed: Rows | None, count: int) -> list[list[int]]:
        rankings = [kept.corpus.best_texts(question, allowed, count)]
        if self._embedder is not None and question.strip():
            rankings.append(self._near(kept, self._embedder.unit([question])[0], allowed, count).tolist())
        return rankings

    def _near(self, kept: _Tenant, question: Matrix, allowed: Rows | None, count: int) -> Rows:
        """Exactly, or approximately with what came after the index exactly."""
        matrix = kept.corpus.matrix
        if not len(matrix) or not count or not question.any():
            return np.zeros(0, np.int64)
        if question.shape != matrix.shape[1:]:
            hint = "ask with the model that the messages were read with"
            raise UserError(f"a vector of {question.shape} for messages of {matrix.shape[1:]} numbers", hint)
        if allowed is not None:
            return allowed[exact(matrix[allowed], question, count)]
        index = None
        if len(matrix) > self._above and approximate.available():
            index = kept.builder.ready(matrix, kept.corpus.packed)
        if index is None:
            return exact(matrix, question, count, kept.corpus.gone)
        rows = np.concatenate([index.nearest(question, count), np.arange(index.rows, len(matrix))])
        return rows[exact(matrix[rows], question, count)]

    def _read(self, tenant: str, corpus: Corpus, rows: list[tuple[int, float]], size: int) -> tuple[Found, ...]:
        """From the store, where alone it is known what there is."""
        reached = self._store.tenant(tenant)
        found: list[Found] = []
        for row, score in rows:
            place = corpus.place(row)
            if len(found) == size or place is None:
                continue
            try:
                item = reached.item(place.conversation, place.item)
            except NotFound:
                continue
            if item.position == place.position:
                found.append(Found(place.conversation, item, score))
        return tuple(found)
