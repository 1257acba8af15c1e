"""A layer of our GPT for answering alone: the same mathematics in fewer and larger operations.

Shape suffixes: B batch, T new tokens, C width, H heads, D head width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plume.models import ragged
from plume.models.attention import Place, attend, rotate
from plume.models.prepacked import Prepacked


class Norm(NamedTuple):
    """RMSNorm as a division by sqrt(|x|² + floor²), which takes half the time of `F.rms_norm` on a short vector."""

    scale: Tensor
    floor: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.floor) * self.scale


def norm(weight: Tensor, eps: float) -> Norm:
    """RMSNorm over the last dimension of `weight`."""
    width = weight.shape[-1]
    return Norm(weight.detach() * width**0.5, torch.tensor((width * eps) ** 0.5, device=weight.device))


class LeanLayer(nn.Module):
    """What a `gpt.Layer` computes, of whose weights it keeps its own arrangement."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        config = attention.config
        self.heads, self.width = config.num_attention_heads, config.head_dim
        self.turned = config.num_attention_heads + config.num_key_value_heads
        self.before = norm(layer.input_layernorm.weight, config.rms_norm_eps)
        self.between = norm(layer.post_attention_layernorm.weight, config.rms_norm_eps)
        self.qk = None
        if config.qk_norm:
            query = attention.q_norm.weight.expand(self.heads, -1)
            key = attention.k_norm.weight.expand(config.num_key_value_heads, -1)
            self.qk = norm(torch.cat([query, key]), config.rms_norm_eps)
        self.qkv = Prepacked(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        self.out = Prepacked(attention.o_proj.weight)
        self.gate_up = Prepacked(mlp.gate_proj.weight, mlp.up_proj.weight)
        self.down = Prepacked(mlp.down_proj.weight)

    def forward(self, x_BTC: Tensor, place: Place, memory: ragged.Memory | None, number: int) -> Tensor:
        # `forward` is called as it is: `nn.Module.__call__` would take as long again as a small product
        qkv_BTHD = self.qkv.forward(self.before(x_BTC)).unflatten(-1, (-1, self.width))
        turned_BTHD, v_BTHD = qkv_BTHD[:, :, : self.turned], qkv_BTHD[:, :, self.turned :]
        if self.qk is not None:
            turned_BTHD = self.qk(turned_BTHD)
        turned_BTHD = rotate(turned_BTHD, *place.rope)
        q_BTHD, k_BTHD = turned_BTHD[:, :, : self.heads], turned_BTHD[:, :, self.heads :]
        x_BTC = x_BTC + self.out.forward(attend(q_BTHD, k_BTHD, v_BTHD, place, memory, number))
        gate, up = self.gate_up.forward(self.between(x_BTC)).chunk(2, dim=-1)
        return x_BTC + self.down.forward(F.silu(gate) * up)
