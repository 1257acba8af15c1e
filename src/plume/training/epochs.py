"""Which stretches of which rows make up each batch of an epoch: a function of seed and epoch alone.

Kept in arrays, about twenty bytes a stretch, so that millions of rows can be shuffled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
import numpy.typing as npt

from plume.errors import UserError
from plume.types import Encoded

_GROUPED_BATCHES = 50
Numbers = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]


class Stretches(Protocol):
    """Rows of which any part can be read, and whose lengths are known."""

    @property
    def lengths(self) -> Numbers: ...
    def stretch(self, row: int, start: int = 0, end: int | None = None) -> Encoded: ...


class Piece(NamedTuple):
    """A stretch of a row."""

    row: int
    start: int
    end: int

    def of(self, rows: Stretches) -> Encoded:
        return rows.stretch(self.row, self.start, self.end)


@dataclass(frozen=True, slots=True)
class EpochPlan(Sequence[list[Piece]]):
    """The batches of an epoch in order. Of each stretch there are its row, start and end; `batches` is the order in
    which runs of `batch_size` stretches are taken."""

    row: Places
    start: Places
    end: Places
    batches: Numbers
    batch_size: int
    packing: bool = False

    def __len__(self) -> int:
        return len(self.batches)

    @overload
    def __getitem__(self, number: int) -> list[Piece]: ...
    @overload
    def __getitem__(self, number: slice) -> list[list[Piece]]: ...
    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        first = int(self.batches[number]) * self.batch_size
        span = slice(first, first + self.batch_size)
        columns = (self.row[span].tolist(), self.start[span].tolist(), self.end[span].tolist())
        return [Piece(*values) for values in zip(*columns, strict=True)]

    @property
    def inputs(self) -> Numbers:
        """Tokens that the batches make the model read, padding apart."""
        return np.add.reduceat(self.end - self.start - 1, self._firsts, dtype=np.int64)[self.batches]

    @property
    def sizes(self) -> Numbers:
        """Tokens that each batch makes the model process, padding included."""
        if self.packing:
            return np.array([self._packed(number) for number in self.batches])
        counts = np.diff(np.append(self._firsts, len(self.row)))
        longest = np.maximum.reduceat(self.end - self.start - 1, self._firsts).astype(np.int64)
        sizes: Numbers = (counts * longest)[self.batches]
        return sizes

    def _packed(self, number: int) -> int:
        span = slice(number * self.batch_size, (number + 1) * self.batch_size)
        inputs = (self.end[span] - self.start[span] - 1).tolist()
        return len(lines_of(inputs)) * int(max(inputs))

    @property
    def _firsts(self) -> Numbers:
        return np.arange(0, len(self.row), self.batch_size)


def epoch_plan(
    rows: Stretches, *, batch_size: int, max_length: int, seed: int, epoch: int, packing: bool = False
) -> EpochPlan:
    """Which stretches of which rows make up each batch of an epoch: of similar length, unless they are to be packed.

    Raises UserError when there is none.
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=16).digest()
    # The Mersenne Twister's numbers are the same in every version of numpy; those of its successor need not be.
    chance = np.random.RandomState(np.frombuffer(digest, dtype=np.uint32))
    row, start, end = _pieces(rows.lengths, max_length, chance)
    if not len(row):
        raise UserError("no row has two tokens: there is nothing to predict", "write longer rows")
    order = chance.permutation(len(row)) if packing else _grouped(end - start, batch_size, chance)
    batches = chance.permutation(-(-len(order) // batch_size))
    return EpochPlan(row[order], start[order], end[order], batches, batch_size, packing)


def lines_of(lengths: Sequence[int]) -> list[list[int]]:
    """Which rows share a line, as their numbers: no line is longer than the longest row. First fit, decreasing
    (Johnson 1973)."""
    ranked = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    lines: list[list[int]] = []
    room: list[int] = []
    for number in ranked:
        fitting = next((line for line, left in enumerate(room) if left >= lengths[number]), None)
        if fitting is None:
            lines.append([number])
            room.append(lengths[ranked[0]] - lengths[number])
        else:
            lines[fitting].append(number)
            room[fitting] -= lengths[number]
    return lines


def _pieces(lengths: Numbers, max_length: int, chance: np.random.RandomState) -> tuple[Places, Places, Places]:
    """Every stretch of an epoch; neighbours share one token, input here, target there."""
    whole = np.flatnonzero((lengths <= max_length + 1) & (lengths > 1))
    rows, starts, ends = [whole], [np.zeros_like(whole)], [lengths[whole]]
    for number in np.flatnonzero(lengths > max_length + 1).tolist():
        size = int(lengths[number])
        first = np.arange(chance.randint(max_length), size - 1, max_length)
        first = np.append(0, first) if first[0] else first
        starts.append(first)
        ends.append(np.minimum(np.append(first[1:], size - 1) + 1, size))
        rows.append(np.full(len(first), number))
    row, start, end = (np.concatenate(column).astype(np.int32) for column in (rows, starts, ends))
    return row, start, end


def _grouped(lengths: Places, batch_size: int, chance: np.random.RandomState) -> Numbers:
    """A random order in which rows of similar length stand together: sorted within random groups."""
    order = chance.permutation(len(lengths))
    group = np.arange(len(order)) // (batch_size * _GROUPED_BATCHES)
    found: Numbers = order[np.lexsort((lengths[order], group))]
    return found
