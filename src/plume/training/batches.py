"""Rows become batches: which rows together, in which order, and as which tensors.

The order is a function of seed and epoch alone, so a resumed run finds its place by counting.
Shape suffixes: B batch, T time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from plume.errors import UserError
from plume.training.replay import Replay, rows_of_epoch
from plume.types import Encoded

IGNORE = -100
_GROUPED_BATCHES = 50


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs and targets (B, T), right-padded; targets are already shifted and IGNORE where untrained."""

    ids_BT: Tensor
    labels_BT: Tensor
    lengths_B: Tensor

    @property
    def trained(self) -> int:
        """Number of tokens in the loss."""
        return int((self.labels_BT != IGNORE).sum())


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
    replay: Replay | None = None,
    skip: int = 0,
) -> Iterator[tuple[float, Batch]]:
    """Endless batches with the epochs passed after each. Rows longer than `max_length` are read in windows
    that begin elsewhere each epoch. `skip` leaves out what a resumed run has already seen. `replay` adds its draws to
    each epoch."""
    for epoch in count():
        shown = rows_of_epoch(rows, replay, epoch)
        plan = epoch_plan(shown, batch_size=batch_size, max_length=max_length, seed=seed, epoch=epoch)
        for number, pieces in enumerate(plan, 1):
            if skip:
                skip -= 1
                continue
            yield epoch + number / len(plan), collate([piece.of(shown) for piece in pieces], pad_id)


def epoch_plan(
    rows: Sequence[Encoded], *, batch_size: int, max_length: int, seed: int, epoch: int
) -> list[list[Piece]]:
    """Which stretches of which rows make up each batch of an epoch. Raises UserError when there is none."""
    chance = random.Random(f"{seed}/{epoch}")
    pieces = _pieces(rows, max_length, chance)
    if not pieces:
        raise UserError("no row has two tokens: there is nothing to predict", "write longer rows")
    plan = _grouped([piece.end - piece.start for piece in pieces], batch_size, chance)
    return [[pieces[index] for index in indices] for indices in plan]


def collate(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """Right-pad, and shift targets by one: here and nowhere else."""
    longest = max(len(row.ids) for row in rows) - 1
    ids_BT = torch.full((len(rows), longest), pad_id)
    labels_BT = torch.full((len(rows), longest), IGNORE)
    for position, row in enumerate(rows):
        size = len(row.ids) - 1
        ids_BT[position, :size] = torch.tensor(row.ids[:-1])
        targets = [id if trained else IGNORE for id, trained in zip(row.ids[1:], row.trained[1:], strict=True)]
        labels_BT[position, :size] = torch.tensor(targets)
    return Batch(ids_BT, labels_BT, torch.tensor([len(row.ids) - 1 for row in rows]))


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
