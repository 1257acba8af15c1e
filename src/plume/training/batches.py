"""Rows become batches: which rows together, in which order, and as which tensors.

The order is a function of seed and epoch alone, so a resumed run finds its place by counting.
Shape suffixes: B batch, T time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from plume.errors import UserError
from plume.types import Encoded

IGNORE = -100
_GROUPED_BATCHES = 50


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs and targets (B, T), right-padded; targets are already shifted and IGNORE where untrained."""

    ids_BT: Tensor
    labels_BT: Tensor
    lengths_B: Tensor
    segments_BT: Tensor | None  # numbers of the examples packed in each row

    @property
    def trained(self) -> int:
        """Number of tokens in the loss."""
        return int((self.labels_BT != IGNORE).sum())

    def rows(self, which: slice) -> Batch:
        """Some of the rows."""
        return self._each(lambda tensor: tensor[which])

    def untrained(self) -> Batch:
        """The same rows with nothing in the loss."""
        return replace(self, labels_BT=torch.full_like(self.labels_BT, IGNORE))

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        segments_BT = None if self.segments_BT is None else change(self.segments_BT)
        return Batch(change(self.ids_BT), change(self.labels_BT), change(self.lengths_B), segments_BT)


class Piece(NamedTuple):
    """A stretch of a row."""

    row: int
    start: int
    end: int

    def of(self, rows: Sequence[Encoded]) -> Encoded:
        row = rows[self.row]
        return Encoded(row.ids[self.start : self.end], row.trained[self.start : self.end])


def batches(
    rows: Sequence[Encoded],
    *,
    batch_size: int,
    max_length: int,
    pad_id: int,
    seed: int,
    packing: bool = False,
    skip: int = 0,
) -> Iterator[tuple[float, Batch]]:
    """Endless batches with the epochs passed after each. Rows longer than `max_length` are read in windows
    that begin elsewhere each epoch. `skip` leaves out what a resumed run has already seen."""
    for epoch in count():
        plan = epoch_plan(rows, batch_size=batch_size, max_length=max_length, seed=seed, epoch=epoch, packing=packing)
        for number, pieces in enumerate(plan, 1):
            if skip:
                skip -= 1
                continue
            yield epoch + number / len(plan), collate([piece.of(rows) for piece in pieces], pad_id, packing=packing)


def epoch_plan(
    rows: Sequence[Encoded], *, batch_size: int, max_length: int, seed: int, epoch: int, packing: bool = False
) -> list[list[Piece]]:
    """Which stretches of which rows make up each batch of an epoch: of similar length, unless they are to be packed.

    Raises UserError when there is none."""
    chance = random.Random(f"{seed}/{epoch}")
    pieces = _pieces(rows, max_length, chance)
    if not pieces:
        raise UserError("no row has two tokens: there is nothing to predict", "write longer rows")
    if packing:
        chance.shuffle(pieces)
        return [pieces[start : start + batch_size] for start in range(0, len(pieces), batch_size)]
    plan = _grouped([piece.end - piece.start for piece in pieces], batch_size, chance)
    return [[pieces[index] for index in indices] for indices in plan]


def lines_of(rows: Sequence[Encoded], *, packing: bool) -> list[list[Encoded]]:
    """Which rows share a line of the batch. Packed lines are no longer than the longest row: first fit, decreasing
    (Johnson 1973)."""
    if not packing:
        return [[row] for row in rows]
    lines: list[list[Encoded]] = []
    room: list[int] = []
    ranked = sorted(rows, key=_inputs, reverse=True)
    for row in ranked:
        fitting = next((number for number, left in enumerate(room) if left >= _inputs(row)), None)
        if fitting is None:
            lines.append([row])
            room.append(_inputs(ranked[0]) - _inputs(row))
        else:
            lines[fitting].append(row)
            room[fitting] -= _inputs(row)
    return lines


def collate(rows: Sequence[Encoded], pad_id: int, *, packing: bool = False) -> Batch:
    """Lay rows out, one a line or packed; right-pad, and shift targets by one: here and nowhere else."""
    lines = lines_of(rows, packing=packing)
    lengths = [sum(map(_inputs, line)) for line in lines]
    ids_BT = torch.full((len(lines), max(lengths)), pad_id)
    labels_BT = torch.full_like(ids_BT, IGNORE)
    segments_BT = torch.full_like(ids_BT, -1)
    for position, line in enumerate(lines):
        start = 0
        for number, row in enumerate(line):
            end = start + _inputs(row)
            ids_BT[position, start:end] = torch.tensor(row.ids[:-1])
            targets = [id if trained else IGNORE for id, trained in zip(row.ids[1:], row.trained[1:], strict=True)]
            labels_BT[position, start:end] = torch.tensor(targets)
            segments_BT[position, start:end] = number
            start = end
    return Batch(ids_BT, labels_BT, torch.tensor(lengths), segments_BT if packing else None)


def _inputs(row: Encoded) -> int:
    """Tokens of a row that are read: the last is a target alone."""
    return len(row.ids) - 1


def _pieces(rows: Sequence[Encoded], max_length: int, chance: random.Random) -> list[Piece]:
    """Every stretch of an epoch; neighbours share one token, input here, target there."""
    pieces = []
    for number, row in enumerate(rows):
        size = len(row.ids)
        if size <= max_length + 1:
            pieces.append(Piece(number, 0, size))
            continue
        first = chance.randrange(max_length)
        pieces.append(Piece(number, 0, first + 1))
        for start in range(first, size - 1, max_length):
            pieces.append(Piece(number, start, min(start + max_length + 1, size)))
    return [piece for piece in pieces if piece.end - piece.start > 1]


def _grouped(lengths: Sequence[int], batch_size: int, chance: random.Random) -> list[list[int]]:
    """Random batches of rows of similar length: sort within random groups, then shuffle the batches."""
    order = list(range(len(lengths)))
    chance.shuffle(order)
    size = batch_size * _GROUPED_BATCHES
    plan = []
    for start in range(0, len(order), size):
        group = sorted(order[start : start + size], key=lambda index: lengths[index])
        plan += [group[at : at + batch_size] for at in range(0, len(group), batch_size)]
    chance.shuffle(plan)
    return plan
