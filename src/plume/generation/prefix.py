"""What was read before need not be read again: states of earlier prompts, found by their common beginning."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

from plume.types import State

_LEAST = 32  # tokens: below, reading is cheaper than copying and keeping a state
_KEPT = 16
_NEWS = 0.75  # a prompt is kept when less than this share of it is known already


class PrefixCache:
    """One-row states by the scope they belong to and the ids they have read; beyond `nbytes` bytes the least recently
    used are dropped."""

    def __init__(self, nbytes: int) -> None:
        self._limit = nbytes
        self._states: OrderedDict[tuple[str, tuple[int, ...]], State] = OrderedDict()
        self._read_at: dict[tuple[str, tuple[int, ...]], float] = {}  # of `time.monotonic`

    @property
    def nbytes(self) -> int:
        return sum(state.nbytes for state in list(self._states.values()))  # another thread may ask

    def find(self, scope: str, ids: Sequence[int]) -> tuple[int, State | None]:
        """How many of the first ids are known, one less than all at most, and a state that has read just those."""
        held, common = self._longest(scope, ids)
        known = min(common, len(ids) - 1)
        if held is None or known < _LEAST:
            return 0, None
        self._states.move_to_end((scope, held))
        try:
            return known, self._states[scope, held].fork().truncate(known)
        except ValueError:  # a window has moved on
            return 0, None

    def wants(self, scope: str, ids: Sequence[int]) -> bool:
        """Whether a state after these ids is worth keeping."""
        return len(ids) >= _LEAST and self._longest(scope, ids)[1] < _NEWS * len(ids)

    def keep(self, scope: str, ids: Sequence[int], state: State) -> None:
        """Keep a one-row state that is nobody else's."""
        key = scope, tuple(ids)
        self._states[key], self._read_at[key] = state, time.monotonic()
        while self._states and (self.nbytes > self._limit or len(self._states) > _KEPT):
            oldest, _ = self._states.popitem(last=False)
            del self._read_at[oldest]

    def forget(self, before: float) -> None:
        """Drop what was read before this time, however often it was found since."""
        for key in [key for key, read_at in self._read_at.items() if read_at < before]:
            del self._states[key], self._read_at[key]

    def _longest(self, scope: str, ids: Sequence[int]) -> tuple[tuple[int, ...] | None, int]:
        lengths = {held: _common(held, ids) for owner, held in self._states if owner == scope}
        best = max(lengths, key=lengths.__getitem__, default=None)
        return best, lengths[best] if best is not None else 0


def _common(held: Sequence[int], ids: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((n for n, (a, b) in enumerate(zip(held, ids, strict=False)) if a != b), min(len(held), len(ids)))
