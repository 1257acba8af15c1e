"""Linear layers over 8- and 4-bit weights, computed by the kernels that PyTorch has for CPUs.

Every row is computed alone, so an answer does not depend on what else is in the batch.
Shape suffixes: M rows, N outputs, K inputs, G groups.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plume.models.one_row import OneRow, of_bytes

GROUP = 32  # inputs that share a scale in int4
_INNER = 2  # k-tiles of the packed int4 layout; the CPU kernel ignores it
_STEPS = 127 * 65536.0  # of an input, from zero to the largest value of a row


class Int8Linear(nn.Module):
    """Weights (N, K) in int8 with one scale an output, inputs in 16 bits, results in float32.

    A row is written as two rows of 8 bits, high and low, whose products with the weights are exact in int32: twice
    the arithmetic, which costs nothing where reading the weights takes the time. PyTorch's kernel for bfloat16 inputs
    is no faster, and gives logits near 100 in steps of 0.5.
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
        self._zeros: Tensor | None = None  # until packed, and where there is no exact kernel
        self._one_row: OneRow | None = None

    def pack(self) -> None:
        """Bring the weights into the kernel's order; where there is none, or it saturates, they become float32."""
        if kernel_is_exact():
            self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
            self._one_row, self._step_scale = of_bytes(self.weight), self.scale / _STEPS
            self.weight = torch.ops.onednn.qlinear_prepack(self.weight, None)
        else:
            self.weight = self.weight.float() * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        if self._zeros is None:
            return F.linear(x, self.weight, self.bias)
        if self._one_row is not None and x.numel() == self.in_features:
            return self._alone(x, self._one_row).view(*x.shape[:-1], -1)
        x_MK = x.reshape(-1, self.in_features)
        largest_M1 = x_MK.abs().amax(dim=-1, keepdim=True)
        # One number of 24 bits with 128 added to each byte, as the kernel counts bytes from 128. A row of zeros
        # becomes any bytes, and is multiplied by zero again.
        wide_MK = torch.add(_offset(), x_MK / largest_M1, alpha=_STEPS).int()
        bytes_3MK = wide_MK.view(torch.uint8).view(*x_MK.shape, 4)[..., :3].permute(2, 0, 1).flatten(0, 1)
        low_MN, middle_MN, high_MN = _product(bytes_3MK, self.weight, self._step_scale, self._zeros).chunk(3)
        y_MN = low_MN.add_(middle_MN, alpha=256).add_(high_MN, alpha=65536)
        y_MN = y_MN.mul_(largest_M1) if self.bias is None else torch.addcmul(self.bias, y_MN, largest_M1)
        return y_MN.view(*x.shape[:-1], self.out_features)

    def _alone(self, x: Tensor, product: OneRow) -> Tensor:
        """The same of a single row (N,), read as it is."""
        sums_N = product(x)
        return sums_N * self.scale if self.bias is None else torch.addcmul(self.bias, sums_N, self.scale)


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


@functools.cache
def kernel_is_exact() -> bool:
    """Does this processor sum products of bytes without saturating on the way? Those without VNNI may not."""
    weight_NK = torch.full((32, 64), 127, dtype=torch.int8)
    ones_N, zeros_N = torch.ones(32), torch.zeros(32, dtype=torch.int32)
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight_NK, None)
        y_MN = _product(torch.tensor([[255], [0]], dtype=torch.uint8).repeat(1, 64), packed, ones_N, zeros_N)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return y_MN[:, 0].tolist() == [127.0 * 127 * 64, -128.0 * 127 * 64]


def _product(rows_MK: Tensor, packed: Tensor, scale_N: Tensor, zeros_N: Tensor) -> Tensor:
    """Rows of bytes that mean their value less 128, times int8 weights, in float32 (M, N)."""
    y_MN: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows_MK, 1.0, 128, packed, scale_N, zeros_N, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return y_MN


@functools.cache
def _offset() -> Tensor:
    return torch.tensor(128.0 * (65536 + 256 + 1))  # from 2**23 on the sum itself is rounded to whole numbers


def _finished(y_MN: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Float32 in the shape of the input, bias added (which widens by itself)."""
    y = y_MN.view(*x.shape[:-1], y_MN.shape[-1])
    return y.float() if bias is None else y + bias
