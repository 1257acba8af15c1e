"""What was said before that belongs to a question: by meaning, by words, or both, within one tenant.

It is searched in this process's memory or by the database itself. What is found is read from the store before it is
given, so nothing that was deleted or has expired is ever found, whatever an index holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

from plume.errors import NotFound, UserError
from plume.memory.recall.database import Database
from plume.memory.recall.memory import Memory
from plume.memory.recall.places import Place, Within
from plume.memory.recall.vectors import Embedder, Matrix
from plume.memory.store import Item, Store, page_size

APPROXIMATE_ABOVE = 200_000  # vectors of one tenant
_DEEP = 5  # times as many as are wanted are taken of each ranking
_RANK = 60  # of reciprocal rank fusion: Cormack, Clarke and Büttcher (2009)
Where = Literal["memory", "database"]


class Found(NamedTuple):
    """A message, where it stands, and how well it fits: comparable within one search only."""

    conversation: str
    item: Item
    score: float


class Index(Protocol):
    """Follows the store: every search first looks what is new."""

    @property
    def name(self) -> str: ...
    def rankings(self, tenant: str, question: str, within: Within, count: int) -> list[list[Place]]:
        """By words, and by meaning where there is an embedder; the best first, at most `count` of each."""
        ...

    def nearest(self, tenant: str, vector: Matrix, count: int) -> list[tuple[Place, float]]:
        """With the inner product. Raises UserError for a vector of another width."""
        ...

    def forget(self, tenant: str) -> None: ...


class Recall:
    """Searches of one store. Without an `embedder`, by words alone.

    `inside` says where: in this process's `memory`, or by the `database`, which is refused with the reason where that
    cannot be (UserError). Without, by the database where it can, else in memory; `where` says which it is.
    """

    def __init__(
        self,
        store: Store,
        embedder: Embedder | None = None,
        *,
        inside: Where | None = None,
        approximate_above: int = APPROXIMATE_ABOVE,
    ) -> None:
        self._store = store
        self.index = _index(store, embedder, inside, approximate_above)

    @property
    def where(self) -> str:
        return self.index.name

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
        size, scores = page_size(limit), dict[Place, float]()
        for ranking in self.index.rankings(tenant, question, Within(conversation, user, before), _DEEP * size):
            for rank, place in enumerate(ranking, 1):
                scores[place] = scores.get(place, 0.0) + 1 / (_RANK + rank)
        best = sorted(scores, key=lambda place: (-scores[place], place))
        return self._read(tenant, ((place, scores[place]) for place in best), size)

    def positions(
        self, tenant: str, conversation: str, question: str, *, before: int | None = None, limit: int = 4
    ) -> tuple[int, ...]:
        """Where the older messages stand that fit a question best: what a window may take up again."""
        found = self.search(tenant, question, conversation=conversation, before=before, limit=limit)
        return tuple(one.item.position for one in found)

    def nearest(self, tenant: str, question: Matrix, limit: int = 10) -> tuple[Found, ...]:
        """By a vector alone, the nearest first; `score` is the cosine."""
        size = page_size(limit)
        return self._read(tenant, self.index.nearest(tenant, question, size), size)

    def forget(self, tenant: str) -> None:
        """Let go of what is in memory of a tenant."""
        self.index.forget(tenant)

    def _read(self, tenant: str, places: Iterable[tuple[Place, float]], size: int) -> tuple[Found, ...]:
        """From the store, where alone it is known what there is."""
        reached = self._store.tenant(tenant)
        found: list[Found] = []
        for place, score in places:
            if len(found) == size:
                break
            try:
                item = reached.item(place.conversation, place.item)
            except NotFound:
                continue
            if item.position == place.position:
                found.append(Found(place.conversation, item, score))
        return tuple(found)


def _index(store: Store, embedder: Embedder | None, inside: Where | None, approximate_above: int) -> Index:
    if inside != "memory":
        try:
            return Database(store, embedder)
        except UserError:
            if inside == "database":
                raise
    return Memory(store, embedder, approximate_above)
