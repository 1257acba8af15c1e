"""Rows that hold several segments, taken apart and put together again.

Shape suffixes: B rows, T time, N segments, R real tokens of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Apart:
    """Every segment as a right-padded row of its own, and the way back."""

    ids_NT: Tensor
    lengths_N: Tensor
    last_B: Tensor  # the segment that each row ends with
    real_BT: Tensor
    segment_R: Tensor
    offset_R: Tensor

    def together(self, hidden_NTC: Tensor) -> Tensor:
        """Hidden states (B, T, C) of the rows as they came; zero at their padding."""
        hidden_BTC = hidden_NTC.new_zeros(*self.real_BT.shape, hidden_NTC.shape[-1])
        return hidden_BTC.masked_scatter(self.real_BT[:, :, None], hidden_NTC[self.segment_R, self.offset_R])


def apart(ids_BT: Tensor, lengths_B: Tensor, segments_BT: Tensor) -> Apart:
    """Cut rows wherever the number in `segments_BT` changes; what lies beyond a row's length is left out."""
    count = ids_BT.shape[1]
    real_BT = torch.arange(count, device=ids_BT.device) < lengths_B[:, None]
    first_BT = torch.ones_like(real_BT)
    first_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    first_R = first_BT[real_BT]
    segment_R = first_R.cumsum(0) - 1
    lengths_N = torch.bincount(segment_R)
    offset_R = torch.arange(len(segment_R), device=ids_BT.device) - (lengths_N.cumsum(0) - lengths_N)[segment_R]
    ids_NT = ids_BT.new_zeros(len(lengths_N), int(lengths_N.max()))
    ids_NT[segment_R, offset_R] = ids_BT[real_BT]
    return Apart(ids_NT, lengths_N, segment_R[lengths_B.cumsum(0) - 1], real_BT, segment_R, offset_R)
