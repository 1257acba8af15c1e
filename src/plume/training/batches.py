"""Rows become batches: which rows together, in which order, and as which tensors.

The order is a function of seed and epoch alone, so a resumed run finds its place by counting.
Shape suffixes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from plume.text.encoded import EncodedRows
from plume.training.epochs import epoch_plan, lines_of
from plume.training.replay import Replay, rows_of_epoch
from plume.types import Encoded

IGNORE = -100


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


def batches(
    rows: EncodedRows,
    *,
    batch_size: int,
    max_length: int,
    pad_id: int,
    seed: int,
    packing: bool = False,
    replay: Replay | None = None,
    skip: int = 0,
) -> Iterator[tuple[float, Batch]]:
    """Endless batches with the epochs passed after each. Rows longer than `max_length` are read in windows
    that begin elsewhere each epoch. `skip` leaves out what a resumed run has already seen. `replay` adds its draws to
    each epoch."""
    for epoch in count():
        shown = rows_of_epoch(rows, replay, epoch)
        plan = epoch_plan(shown, batch_size=batch_size, max_length=max_length, seed=seed, epoch=epoch, packing=packing)
        for number in range(min(skip, len(plan)), len(plan)):
            pieces = plan[number]
            batch = collate([piece.of(shown) for piece in pieces], pad_id, packing=packing)
            yield epoch + (number + 1) / len(plan), batch
        skip = max(0, skip - len(plan))


def collate(rows: Sequence[Encoded], pad_id: int, *, packing: bool = False) -> Batch:
    """Lay rows out, one a line or packed; right-pad, and shift targets by one: here and nowhere else."""
    inputs = [len(row.ids) - 1 for row in rows]
    lines = lines_of(inputs) if packing else [[number] for number in range(len(rows))]
    lengths = [sum(inputs[number] for number in line) for line in lines]
    ids_BT = torch.full((len(lines), max(lengths)), pad_id)
    labels_BT = torch.full_like(ids_BT, IGNORE)
    segments_BT = torch.full_like(ids_BT, -1)
    for position, line in enumerate(lines):
        start = 0
        for segment, number in enumerate(line):
            row, end = rows[number], start + inputs[number]
            ids_BT[position, start:end] = torch.tensor(row.ids[:-1])
            targets = [id if trained else IGNORE for id, trained in zip(row.ids[1:], row.trained[1:], strict=True)]
            labels_BT[position, start:end] = torch.tensor(targets)
            segments_BT[position, start:end] = segment
            start = end
    return Batch(ids_BT, labels_BT, torch.tensor(lengths), segments_BT if packing else None)
