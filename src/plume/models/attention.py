"""Causal attention with rotary positions over a ragged memory.

Shape suffixes: B batch, T new tokens, S slots, H heads, D head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from plume.models import ragged


class Place(NamedTuple):
    """Where the new tokens stand: among what their rows hold, their rotary cosines and sines, and the additive mask
    (B or 1, 1, T, S) of what they may look at, None where that is all, or for tokens read first, all before them."""

    among: ragged.Place
    rope: tuple[Tensor, Tensor]
    mask_B1TS: Tensor | None


def attend(
    q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, place: Place, memory: ragged.Memory | None, number: int
) -> Tensor:
    """What each new token finds among all that its row holds with it (B, T, H x D); remembered as layer `number`."""
    if memory is not None:
        k_BTHD = memory.write(2 * number, k_BTHD, place.among)
        v_BTHD = memory.write(2 * number + 1, v_BTHD, place.among)
    mixed_BHTD = F.scaled_dot_product_attention(
        q_BTHD.transpose(1, 2),
        k_BTHD.transpose(1, 2),
        v_BTHD.transpose(1, 2),
        attn_mask=place.mask_B1TS,
        is_causal=place.mask_B1TS is None and q_BTHD.shape[1] > 1,
        enable_gqa=q_BTHD.shape[2] != k_BTHD.shape[2],
    )
    return mixed_BHTD.transpose(1, 2).flatten(2)


def rotary(width: int, theta: float, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 1, D) of rotary positions (Su et al. 2021), halves convention; the sines of the first half
    are those of the way back, for `rotate`."""
    half = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    angles = torch.arange(positions, device=device)[:, None, None] / theta ** (half / width)
    return angles.cos().repeat(1, 1, 2), torch.cat([-angles.sin(), angles.sin()], dim=-1)


def rotate(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x_BTHD * cos, x_BTHD.roll(x_BTHD.shape[-1] // 2, dims=-1), sin)
