"""Rows become batches: which rows together, in which order, and as which tensors.

The order is a function of seed and epoch alone, so a resumed run finds its place by counting.
Shape suffixes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from plume.text.encoded import EncodedRows
from plume.training.epochs import epoch_plan
from plume.types import Encoded

IGNORE = -100


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


def batches(
    rows: EncodedRows, *, batch_size: int, max_length: int, pad_id: int, seed: int, skip: int = 0
) -> Iterator[tuple[float, Batch]]:
    """Endless batches with the epochs passed after each. Rows longer than `max_length` are read in windows
    that begin elsewhere each epoch. `skip` leaves out what a resumed run has already seen."""
    for epoch in count():
        plan = epoch_plan(rows, batch_size=batch_size, max_length=max_length, seed=seed, epoch=epoch)
        for number in range(min(skip, len(plan)), len(plan)):
            pieces = plan[number]
            yield epoch + (number + 1) / len(plan), collate([piece.of(rows) for piece in pieces], pad_id)
        skip = max(0, skip - len(plan))


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
