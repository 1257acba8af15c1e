"""The product of one row and a matrix as weighted sums of a table's rows: PyTorch's kernels for that (`embedding_bag`)
ask for memory ahead of need, where those for matrices wait for it.

Shape suffixes: N outputs, K inputs, G blocks of outputs, C chunks of inputs, R rows of the table.
"""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

_CHUNK = 512  # inputs that oneDNN adds up before it adds them to the others
_WIDTH = 64  # outputs of a block in oneDNN's layout for processors with AVX-512
_WIDEST = 192  # outputs of a block of bytes
META = 8  # bytes behind them: what a step and a zero mean


class OneRow:
    """A product with a table (R, …) that holds, block by block of the outputs, a row of weights for each input."""

    def __init__(self, table: Tensor, inputs: int, outputs: int, chunk: int) -> None:
        self.inputs, self._outputs, self.table = inputs, outputs, table
        self._blocks = len(table) // inputs
        starts_C = torch.arange(0, inputs, chunk, dtype=torch.int32)
        firsts_G1 = torch.arange(0, len(table), inputs, dtype=torch.int32)[:, None]
        self._starts, self._chunks = (firsts_G1 + starts_C).flatten(), len(starts_C)

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs (N,) of one row of inputs, whatever its shape."""
        inputs_R = x.reshape(1, -1).expand(self._blocks, -1).reshape(-1)
        sums = self._sums(_order(len(self.table)), inputs_R)
        if self._chunks > 1:
            sums = sums.view(self._blocks, self._chunks, -1).sum(dim=1)
        return sums.view(-1)[: self._outputs]

    def _sums(self, order_R: Tensor, inputs_R: Tensor) -> Tensor:
        sums: Tensor
        if self.table.dtype == torch.uint8:
            in_bytes = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
            sums = in_bytes(self.table, order_R, self._starts, False, 0, False, inputs_R)
        else:
            sums = torch.embedding_bag(self.table, order_R, self._starts, False, 0, False, inputs_R)[0]
        return sums


def of_packed(packed: Tensor, inputs: int, outputs: int) -> OneRow | None:
    """Over the memory of oneDNN's packed weights, which must outlive it; None where they are laid out otherwise, or the
    results would not be the same to the bit."""
    size = torch.ops.mkldnn._nbytes(packed) // 4
    if size != -(-outputs // _WIDTH) * _WIDTH * inputs:
        return None
    memory = (ctypes.c_float * size).from_address(torch.ops.mkldnn.data_ptr(packed))
    found = OneRow(torch.frombuffer(memory, dtype=torch.float32).view(-1, _WIDTH), inputs, outputs, _CHUNK)
    probe = torch.arange(inputs).sin()[None]
    expected = torch.ops.mkldnn._linear_pointwise(probe, packed, None, "none", [], "")[0]
    return found if torch.equal(found(probe), expected) else None


def of_bytes(weight_NK: Tensor) -> OneRow:
    """Over a copy of whole numbers from -127 to 127. The number of blocks is even, for an even number of threads."""
    outputs, inputs = weight_NK.shape
    blocks = 2 * -(-outputs // (2 * _WIDEST))
    width = 4 * -(-outputs // (4 * blocks))
    table_GKm = torch.zeros(blocks, inputs, width + META, dtype=torch.uint8)
    for table_Km, weight_nK in zip(table_GKm, weight_NK.view(torch.uint8).split(width), strict=False):
        table_Km[:, : len(weight_nK)] = weight_nK.t() ^ 128
    table_GKm[..., width:] = torch.tensor([1.0, -128.0]).view(torch.uint8)
    return OneRow(table_GKm.flatten(0, 1), inputs, outputs, inputs)


@functools.cache
def _order(rows: int) -> Tensor:
    return torch.arange(rows, dtype=torch.int32)
