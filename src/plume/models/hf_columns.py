"""What transformers' models remember, in a cache that grows by whole columns: for architectures that count columns.

A shorter row has holes in it; the attention mask hides them and positions count real tokens only.
Shape suffixes: B batch, H heads, S columns, D head width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache


@dataclass(slots=True)
class Columns:
    """transformers' cache, and which of its tokens are real (B, S)."""

    cache: DynamicCache
    real_BS: Tensor

    @property
    def lengths_B(self) -> Tensor:
        return self.real_BS.sum(dim=1)

    @property
    def layers(self) -> list[Any]:
        layers: list[Any] = self.cache.layers
        return layers

    @property
    def nbytes(self) -> int:
        return sum(int(layer.keys.nbytes + layer.values.nbytes) for layer in self.layers)

    def select(self, rows: Tensor) -> Columns:
        self.cache.batch_select_indices(rows)
        return Columns(self.cache, self.real_BS[rows])

    def join(self, other: Columns) -> Columns:
        mine, theirs = self.aligned(), other.aligned()
        width = max(mine.real_BS.shape[1], theirs.real_BS.shape[1])
        for layer, more in zip(mine.layers, theirs.layers, strict=True):
            layer.keys = torch.cat([_widened(side.keys, width, -2) for side in (layer, more)])
            layer.values = torch.cat([_widened(side.values, width, -2) for side in (layer, more)])
        real_BS = torch.cat([_widened(side.real_BS, width, -1) for side in (mine, theirs)])
        return Columns(mine.cache, real_BS)

    def fork(self) -> Columns:
        return Columns(copy.deepcopy(self.cache), self.real_BS.clone())

    def truncate(self, n: int) -> Columns:
        """Forget every row's tokens from the n-th on: hidden, and cut off where no row needs the column."""
        real_BS = self.real_BS & (self.real_BS.cumsum(dim=1) <= n)
        needed = int(real_BS.any(dim=0).nonzero().max()) + 1 if real_BS.any() else 0
        self.cache.crop(needed - real_BS.shape[1])
        return Columns(self.cache, real_BS[:, :needed])

    def aligned(self) -> Columns:
        """Every row's tokens moved to the end, without holes: a window over columns (GPT-Neo's local attention) then
        holds as many tokens as in a row read alone."""
        order_BS = self.real_BS.long().argsort(dim=1, stable=True)
        empty = self.real_BS.shape[1] - int(self.lengths_B.max())
        if not empty and bool((order_BS.diff(dim=1) > 0).all()):
            return self
        order_BS = order_BS[:, empty:]
        for layer in self.layers:
            order_BHSD = order_BS[:, None, :, None].expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
            layer.keys, layer.values = layer.keys.gather(2, order_BHSD), layer.values.gather(2, order_BHSD)
        return Columns(self.cache, self.real_BS.gather(1, order_BS))


def _widened(tensor: Tensor, width: int, dim: int) -> Tensor:
    """Empty columns put in front, up to the width."""
    missing = width - tensor.shape[dim]
    return F.pad(tensor, (*[0] * (2 * (-dim - 1)), missing, 0))
