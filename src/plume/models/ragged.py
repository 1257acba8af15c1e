"""Memory of rows of different lengths: row b of a buffer holds `lengths_B[b]` real entries, then anything.

Entries written for padding lie beyond a row's length, where the next write covers them and no mask looks.
Shape suffixes: B batch, T new tokens, S slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROWTH = 64  # slots added at a time


def new_positions(lengths_B: Tensor, count: int) -> Tensor:
    """Positions (B, T) of the next `count` tokens of every row."""
    return lengths_B[:, None] + torch.arange(count, device=lengths_B.device)


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


def refuse_continued(state: object, segments_BT: Tensor | None) -> None:
    """Packed segments begin anew: they cannot continue a state."""
    if state is not None and segments_BT is not None:
        raise ValueError("packed segments begin anew: they cannot continue a state")


def append(buffer_BS: Tensor | None, new_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """Write `new_BT` (B, T, …) behind every row's real entries, in place where the buffer has room."""
    if buffer_BS is None:
        return new_BT
    count, longest = new_BT.shape[1], int(lengths_B.max())
    if buffer_BS.shape[1] < longest + count:
        spare = new_BT.new_zeros(new_BT.shape[0], longest + count - buffer_BS.shape[1] + GROWTH, *new_BT.shape[2:])
        buffer_BS = torch.cat([buffer_BS, spare], dim=1)
    if int(lengths_B.min()) == longest:
        buffer_BS[:, longest : longest + count] = new_BT
    else:
        rows = torch.arange(len(lengths_B), device=lengths_B.device)[:, None]
        buffer_BS[rows, new_positions(lengths_B, count)] = new_BT
    return buffer_BS


def visible(lengths_B: Tensor, count: int, slots: int) -> Tensor:
    """Mask (B, T, S): which slots each of the next `count` tokens may look at, itself included."""
    return torch.arange(slots, device=lengths_B.device) <= new_positions(lengths_B, count)[:, :, None]


def latest(buffer_BS: Tensor, lengths_B: Tensor, count: int) -> Tensor:
    """The last `count` real entries of every row, or all that a shorter row has."""
    rows = torch.arange(len(lengths_B), device=lengths_B.device)[:, None]
    return buffer_BS[rows, new_positions((lengths_B - count).clamp(min=0), count)]


def start_lengths(ids_BT: Tensor) -> Tensor:
    return torch.zeros(ids_BT.shape[0], dtype=torch.long, device=ids_BT.device)


def added(lengths_B: Tensor | None, ids_BT: Tensor) -> Tensor:
    """How many real tokens each row of a call brings."""
    if lengths_B is None:
        return torch.full((ids_BT.shape[0],), ids_BT.shape[1], dtype=torch.long, device=ids_BT.device)
    return lengths_B
