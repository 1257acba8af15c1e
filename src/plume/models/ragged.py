"""Memory of rows of different lengths: row b of a buffer holds `lengths[b]` real entries, then anything finite.

Buffers keep room to spare, so a token, a row that joins and a row that leaves are written in place. Entries written
for padding lie beyond a row's length, where the next write covers them and no mask looks.
Shape suffixes: B rows, T new tokens, S slots, H heads, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

BLOCK = 32  # slots are added by whole blocks
_SPARSE = 4  # rows kept at most for each live one


@dataclass(frozen=True, slots=True)
class Place:
    """Where the new tokens of a call stand. `least` and `most` are what the shortest and the longest row hold before
    them; of the slots, those from `first` on matter."""

    positions_BT: Tensor
    least: int
    most: int
    rows_B1: Tensor
    first: int = 0

    @property
    def count(self) -> int:
        return self.positions_BT.shape[1]

    @property
    def even(self) -> bool:
        """Whether all rows hold the same number of entries."""
        return self.least == self.most

    @property
    def slots(self) -> int:
        """How many entries the longest row holds with the new ones."""
        return self.most + self.count

    def visible(self, window: int | None = None) -> Tensor:
        """Mask (B or 1, T, S): which slots each new token may look at, itself included, the latest `window` at most."""
        positions_BT = self.positions_BT[:1] if self.even else self.positions_BT
        slots_S = torch.arange(self.first, self.slots, device=positions_BT.device)
        mask_BTS = slots_S <= positions_BT[:, :, None]
        return mask_BTS if window is None else mask_BTS & (slots_S > positions_BT[:, :, None] - window)

    def part(self, start: int, stop: int, window: int | None) -> Place:
        """The place of the new tokens from `start` to `stop` alone, each of which sees the latest `window` at most."""
        least, most = self.least + start, self.most + start
        first = 0 if window is None else max(0, least - window + 1)
        return Place(self.positions_BT[:, start:stop], least, most, self.rows_B1, first)


@dataclass(slots=True)
class Memory:
    """What a model keeps of every token read: buffers (rows, slots, …), all with the same rows and slots, of which
    the first `len(lengths)` rows are live. Everything but `fork` works in place and uses the memory up.

    Slots come in blocks of 32. Rows are exact until others join, then at least doubled when they run out and given
    back when fewer than a quarter of them live, so there are never more than four for each live one.
    """

    lengths: list[int]
    buffers: list[Tensor] = field(default_factory=list)

    @classmethod
    def start(cls, ids_BT: Tensor) -> Memory:
        """Of as many rows, which have read nothing yet."""
        return cls([0] * len(ids_BT))

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def place(self, count: int, device: torch.device) -> Place:
        """Where the next `count` tokens of every row will stand; makes room for them."""
        least, most = min(self.lengths), max(self.lengths)
        self.reserve(count)
        steps_T = torch.arange(count, device=device)
        rows_B1 = torch.arange(len(self.lengths), device=device)[:, None]
        if least == most:
            return Place((steps_T + most).expand(len(self.lengths), -1), least, most, rows_B1)
        return Place(torch.tensor(self.lengths, device=device)[:, None] + steps_T, least, most, rows_B1)

    def reserve(self, count: int) -> None:
        """Make room for `count` more tokens in every row."""
        if self.buffers and self.buffers[0].shape[1] < self.longest + count:
            self._rebuild(slice(len(self.lengths)), self.buffers[0].shape[0], self.longest + count)

    def write(self, number: int, new_BT: Tensor, place: Place) -> Tensor:
        """Put `new_BT` (B, T, …) behind every row's entries of one buffer; what all rows hold then (B, S, …)."""
        if number == len(self.buffers):
            # what is differentiated must be kept as it is, and goes no further
            self.buffers.append(new_BT if torch.is_grad_enabled() else _room(new_BT, len(new_BT), place.slots))
            if torch.is_grad_enabled():
                return new_BT
        live = self.buffers[number][: len(self.lengths), : place.slots]
        if place.even:
            live[:, place.most :] = new_BT
        else:
            live[place.rows_B1, place.positions_BT] = new_BT
        return live

    def advance(self, added: list[int]) -> None:
        """Count what was written: so many real tokens more in each row."""
        self.lengths = [length + more for length, more in zip(self.lengths, added, strict=True)]

    def select(self, rows: Tensor) -> Memory:
        """Keep these rows, in this order; a row that stays where it is is not touched."""
        order: list[int] = rows.tolist()
        self.lengths = [self.lengths[row] for row in order]
        if not order or not self.buffers:
            return Memory(self.lengths)
        held = self.buffers[0].shape[0]
        if torch.is_grad_enabled() or not held / _SPARSE <= len(order) <= held:
            self._rebuild(rows, len(order), self.longest)
        elif moved := [(place, row) for place, row in enumerate(order) if place != row]:
            places, sources = (torch.tensor(side, device=rows.device) for side in zip(*moved, strict=True))
            longest = max(self.lengths[place] for place, _ in moved)
            for buffer in self.buffers:
                buffer[places, :longest] = buffer[sources, :longest]
                _forget(buffer, places, longest)
        return self

    def join(self, other: Memory) -> Memory:
        """Put the rows of another memory behind these; uses both up."""
        if not self.lengths or not self.buffers:
            return Memory(self.lengths + other.lengths, other.buffers)
        if not other.lengths:
            return self
        start, stop, longest = len(self.lengths), len(self.lengths) + len(other.lengths), other.longest
        rows, slots = self.buffers[0].shape[:2]
        if rows < stop or slots < longest:
            self._rebuild(slice(start), max(stop, 2 * rows) if rows < stop else rows, max(slots, longest))
        for mine, theirs in zip(self.buffers, other.buffers, strict=True):
            mine[start:stop, :longest] = theirs[: stop - start, :longest]
            _forget(mine, slice(start, stop), longest)
        self.lengths += other.lengths
        return self

    def fork(self) -> Memory:
        """An independent copy, with nothing to spare but the rest of a block."""
        copy = Memory(list(self.lengths), list(self.buffers))
        copy._rebuild(slice(len(self.lengths)), len(self.lengths), self.longest)
        return copy

    def truncate(self, n: int) -> Memory:
        """Forget every row's tokens from the n-th on."""
        self.lengths = [min(length, n) for length in self.lengths]
        return self

    def keep_latest(self, count: int) -> None:
        """Forget all but the last `count` entries of every row."""
        device = self.buffers[0].device
        first_B1 = torch.tensor([max(0, length - count) for length in self.lengths], device=device)[:, None]
        rows_B1 = torch.arange(len(self.lengths), device=device)[:, None]
        at_BS = first_B1 + torch.arange(min(count, self.longest), device=device)
        kept = [buffer[rows_B1, at_BS] for buffer in self.buffers]
        self.lengths = [min(length, count) for length in self.lengths]
        self.buffers = [_filled(_room(new, len(new), self.longest), new) for new in kept]

    def _rebuild(self, kept: Tensor | slice, rows: int, slots: int) -> None:
        """New buffers with room for so much, and in them these rows."""
        longest = self.longest
        self.buffers = [_filled(_room(old, rows, slots), old[:, :longest][kept]) for old in self.buffers]


def capacity(slots: int) -> int:
    """How many slots are held for so many entries."""
    return -(-slots // BLOCK) * BLOCK


def _room(like: Tensor, rows: int, slots: int) -> Tensor:
    """Zeros (rows, slots, …); the slots of one head lie beside each other, as attention reads them."""
    return like.new_zeros(rows, *like.shape[2:-1], capacity(slots), like.shape[-1]).movedim(-2, 1)


def _filled(room: Tensor, content: Tensor) -> Tensor:
    room[: content.shape[0], : content.shape[1]] = content
    return room


def _forget(buffer: Tensor, rows: Tensor | slice, start: int) -> None:
    """Clear what a former row left there: a mask does not hide a NaN."""
    if start < buffer.shape[1]:
        buffer[rows, start:] = 0


def segment_positions(segments_BT: Tensor) -> Tensor:
    """Positions (B, T) that count from zero wherever the number of the segment changes."""
    slots_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
    starts_BT = slots_T.repeat(len(segments_BT), 1)
    starts_BT[:, 1:].masked_fill_(segments_BT[:, 1:] == segments_BT[:, :-1], 0)
    return slots_T - starts_BT.cummax(dim=1).values


def within_segments(positions_BT: Tensor) -> Tensor:
    """Mask (B, T, T): each token may look back to the start of its segment, itself included."""
    slots_T = torch.arange(positions_BT.shape[1], device=positions_BT.device)
    first_BT1 = (slots_T - positions_BT)[:, :, None]
    return (slots_T >= first_BT1) & (slots_T <= slots_T[:, None])


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added to scores: made once, where attention would make it of a boolean one in every layer."""
    return torch.where(visible, 0.0, float("-inf")).to(dtype)


def refuse_continued(state: object, segments_BT: Tensor | None) -> None:
    """Packed segments begin anew: they cannot continue a state."""
    if state is not None and segments_BT is not None:
        raise ValueError("packed segments begin anew: they cannot continue a state")


def added(lengths_B: Tensor | None, ids_BT: Tensor) -> list[int]:
    """How many real tokens each row of a call brings."""
    if lengths_B is None:
        return [ids_BT.shape[1]] * ids_BT.shape[0]
    counts: list[int] = lengths_B.tolist()
    return counts
