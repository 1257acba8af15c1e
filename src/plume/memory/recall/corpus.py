"""What one tenant has said, in this process's memory: vectors in a matrix and texts in a full-text index.

It follows the store: `refresh` looks which conversations there are now, reads what is new in those that moved, and
forgets what is gone or has expired. A message's row in the matrix stays where it is until the matrix is packed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from plume.errors import NotFound
from plume.memory.recall.fulltext import FullText
from plume.memory.recall.places import Place, Within
from plume.memory.recall.spoken import BATCH, embedded, spoken
from plume.memory.recall.vectors import Embedder, Matrix
from plume.memory.store import Conversation, Item, Tenant

_PAGE = 500  # conversations
_FEW = 1000  # rows that are gone, for which packing is not worth while
Rows = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Known:
    """A conversation as it was last read; `rows` by position."""

    created_at: float
    head: int
    user: str | None
    rows: dict[int, int] = field(default_factory=dict)


class Corpus:
    """Of one tenant. `packed` counts how often rows were given new numbers."""

    def __init__(self, tenant: Tenant, embedder: Embedder | None) -> None:
        self._tenant, self._embedder = tenant, embedder
        self._known: dict[str, _Known] = {}
        self._matrix: Matrix = np.zeros((0, 0), np.float32)
        self._places: list[Place | None] = []
        self._gone: list[int] = []
        self._texts = FullText()
        self.packed = 0

    @property
    def matrix(self) -> Matrix:
        """A row for each message, zeros for those that are gone."""
        return self._matrix[: len(self._places)]

    @property
    def gone(self) -> Rows:
        """Rows of messages that are no longer there."""
        return np.array(self._gone, np.int64)

    def place(self, row: int) -> Place | None:
        return self._places[row]

    def refresh(self) -> None:
        """Be as the store is now."""
        seen: set[str] = set()
        for found in self._conversations():
            seen.add(found.id)
            known = self._known.get(found.id)
            if known is None or (known.created_at, known.head) != (found.created_at, found.head):
                self._follow(found, known)
        for id in self._known.keys() - seen:
            self._forget(id)
        if len(self._gone) > _FEW and 4 * len(self._gone) > len(self._places):
            self._pack()

    def rows(self, within: Within) -> Rows | None:
        """None for all."""
        conversation, user, before = within
        if within == Within():
            return None
        asked = self._known.values() if conversation is None else filter(None, [self._known.get(conversation)])
        chosen = (
            row
            for known in asked
            if user in (None, known.user)
            for position, row in known.rows.items()
            if before is None or position < before
        )
        return np.fromiter(chosen, np.int64)

    def best_texts(self, question: str, allowed: Rows | None, limit: int) -> list[int]:
        """Rows by full text, the best first."""
        if allowed is None:
            return list(islice(self._texts.best(question), limit))
        wanted = set(allowed.tolist())
        return list(islice((row for row in self._texts.best(question) if row in wanted), limit))

    def _conversations(self) -> Iterable[Conversation]:
        after = None
        while page := self._tenant.conversations(after=after, limit=_PAGE):
            yield from page
            after = page[-1].id
            if len(page) < _PAGE:
                return

    def _follow(self, found: Conversation, known: _Known | None) -> None:
        """Read what is new. Every position behind the old head holds a message unless one was taken out since: then
        everything is read again."""
        start = known.head if known and known.created_at == found.created_at and known.head < found.head else 0
        try:
            now = self._tenant.read(found.id, after=start - 1)
            if known is not None and (start == 0 or len(now.items) != now.head - start):
                self._forget(found.id)
                now = self._tenant.read(found.id) if start else now
                start = 0
            vectors = self._tenant.vectors(found.id, after=start - 1) if self._embedder else {}
            known = self._known.setdefault(found.id, _Known(now.created_at, 0, now.user))
            found_here = spoken(now.items)
            for first in range(0, len(found_here), BATCH):
                self._add(now, found_here[first : first + BATCH], vectors)
            known.created_at, known.head = now.created_at, now.head
        except NotFound:  # it went meanwhile
            self._forget(found.id)

    def _add(self, conversation: Conversation, items: Sequence[Item], vectors: Mapping[int, bytes]) -> None:
        first = len(self._places)
        rows = range(first, first + len(items))
        if self._embedder is not None:
            self._fill(first, embedded(self._tenant, self._embedder, conversation, items, vectors))
        self._places += [Place(conversation.id, item.position, item.id) for item in items]
        self._known[conversation.id].rows.update((item.position, row) for item, row in zip(items, rows, strict=True))
        self._texts.add((row, item.message.content) for row, item in zip(rows, items, strict=True))

    def _fill(self, first: int, vectors: Matrix) -> None:
        end, width = first + len(vectors), vectors.shape[1]
        if self._matrix.shape[1] != width:  # the first ones say how wide
            self._matrix = np.zeros((max(end, 1024), width), np.float32)
        if len(self._matrix) < end:
            larger = np.zeros((max(end, 2 * len(self._matrix)), width), np.float32)
            larger[:first] = self._matrix[:first]
            self._matrix = larger
        self._matrix[first:end] = vectors

    def _forget(self, id: str) -> None:
        known = self._known.pop(id, None)
        if known is None or not known.rows:
            return
        rows = list(known.rows.values())
        self._texts.remove(rows)
        for row in rows:
            self._places[row] = None
        if self._embedder is not None:
            self._matrix[rows] = 0
        self._gone += rows

    def _pack(self) -> None:
        """Close the gaps; full text is numbered anew with the rest, from what it holds itself."""
        alive = [row for row, place in enumerate(self._places) if place is not None]
        self._texts.renumber(alive)
        if self._embedder is not None:
            self._matrix = self._matrix[alive]
        self._places = [self._places[row] for row in alive]
        moved = {old: new for new, old in enumerate(alive)}
        for known in self._known.values():
            known.rows = {position: moved[row] for position, row in known.rows.items()}
        self._gone = []
        self.packed += 1
