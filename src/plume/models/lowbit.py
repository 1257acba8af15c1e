"""Linear layers over 8- and 4-bit weights, computed by the kernels that PyTorch has for CPUs.

Every row is computed alone, so an answer does not depend on what else is in the batch.
Shape suffixes: M rows, N outputs, K inputs, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plume.models.one_row import META, OneRow, of_bytes

GROUP = 32  # inputs that share a scale in int4
_INNER = 2  # k-tiles of the packed int4 layout; the CPU kernel ignores it
_ROOM = 2**20  # weights in float32 at a time


class Int8Linear(nn.Module):
    """Weights (N, K) in int8 with one scale an output; inputs and results are float32, and sums are taken in it.

    PyTorch's kernels for matrices of bytes take inputs in bytes or bfloat16 and are no faster.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(out_features))
        self.register_buffer("bias", torch.empty(out_features) if bias else None)
        self._one_row: OneRow | None = None  # until packed

    def pack(self) -> None:
        """Bring the weights into the order in which they are multiplied."""
        self._one_row = of_bytes(self.weight)
        self.weight = self._one_row.table

    def forward(self, x: Tensor) -> Tensor:
        assert self._one_row is not None, "pack it first"
        sums = self._one_row(x) if x.numel() == self.in_features else self._several(x.reshape(-1, self.in_features))
        y = sums * self.scale if self.bias is None else torch.addcmul(self.bias, sums, self.scale)
        return y.view(*x.shape[:-1], self.out_features)

    def _several(self, x_MK: Tensor) -> Tensor:
        """Sums (M, N) with the weights in float32, some blocks of outputs at a time."""
        width = self.weight.shape[1] - META
        at_once = max(1, _ROOM // (width * self.in_features)) * self.in_features
        parts_GMn = [
            x_MK @ torch.ops.quantized.embedding_bag_byte_unpack(rows).view(-1, self.in_features, width)
            for rows in self.weight.split(at_once)
        ]
        return torch.cat(parts_GMn).transpose(0, 1).flatten(1)[:, : self.out_features]


class Int4Linear(nn.Module):
    """Weights in 4 bits, two a byte (N, K/2), with a scale and a zero point for every 32 inputs (G, N, 2).

    Inputs and results are rounded to bfloat16: the kernel has no other.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight", torch.empty(out_features, in_features // 2, dtype=torch.uint8))
        self.register_buffer("scale", torch.empty(in_features // GROUP, out_features, 2, dtype=torch.bfloat16))
        self.register_buffer("bias", torch.empty(out_features) if bias else None)

    def pack(self) -> None:
        """Bring the weights into the order in which this processor's kernel reads them."""
        values = torch.stack([self.weight >> 4, self.weight & 15], dim=-1).flatten(1).int()
        self.weight = torch._convert_weight_to_int4pack_for_cpu(values, _INNER)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).bfloat16()
        return _finished(torch._weight_int4pack_mm_for_cpu(rows, self.weight, GROUP, self.scale), self.bias, x)


def int8_of(matrix_NK: Tensor) -> dict[str, Tensor]:
    """Symmetric int8, one scale an output."""
    scale_N = (matrix_NK.abs().amax(dim=1) / 127).clamp(min=1e-30)
    return {"weight": (matrix_NK / scale_N[:, None]).round_().to(torch.int8), "scale": scale_N}


def int4_of(matrix_NK: Tensor) -> dict[str, Tensor]:
    """4 bits from the least to the largest weight of each group: w = (q - 8) scale + zero."""
    groups_NGk = matrix_NK.unflatten(1, (-1, GROUP))
    least_NG, largest_NG = groups_NGk.amin(dim=-1), groups_NGk.amax(dim=-1)
    scale_NG = ((largest_NG - least_NG) / 15).clamp(min=1e-30).bfloat16()
    zero_NG = (least_NG + 8 * scale_NG.float()).bfloat16()
    quantized = ((groups_NGk - zero_NG.float()[..., None]) / scale_NG.float()[..., None]).round_().add_(8)
    values_NK = quantized.clamp_(0, 15).flatten(1).to(torch.uint8)
    scale_GN2 = torch.stack([scale_NG, zero_NG], dim=-1).transpose(0, 1).contiguous()
    return {"weight": values_NK[:, ::2] << 4 | values_NK[:, 1::2], "scale": scale_GN2}


def _finished(y_MN: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Float32 in the shape of the input, bias added (which widens by itself)."""
    y = y_MN.view(*x.shape[:-1], y_MN.shape[-1])
    return y.float() if bias is None else y + bias
