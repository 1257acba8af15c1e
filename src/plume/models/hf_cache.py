"""What transformers' models remember, kept in Plume's own ragged memory: slot i of a row is its i-th token.

So positions are real, every row is written at its own length, and a sliding window is a mask over slots.
Shape suffixes: B batch, T new tokens, S slots, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from plume.models import ragged

_KINDS = {"full_attention", "sliding_attention"}


class RaggedLayer(CacheLayerMixin):
    """One layer's keys and values for the length of one call."""

    is_sliding = False

    def __init__(self, memory: ragged.Memory, place: ragged.Place, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory, self.place, self.number = memory, place, number
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of all that the rows hold with the new ones (B, H, T, D)."""
        keys = self.memory.write(2 * self.number, key_states.transpose(1, 2), self.place)
        values = self.memory.write(2 * self.number + 1, value_states.transpose(1, 2), self.place)
        return keys.transpose(1, 2), values.transpose(1, 2)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Buffers are made when they are first written."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002 - the place knows it
        return self.place.slots, 0

    def get_seq_length(self) -> int:
        return self.place.most

    def get_max_length(self) -> int:
        return -1


def cache(memory: ragged.Memory, place: ragged.Place, layers: int) -> Cache:
    """The memory as a model of so many layers wants to see it in one call."""
    return Cache(layers=[RaggedLayer(memory, place, number) for number in range(layers)])


def windows(config: Any) -> Mapping[str, int | None] | None:
    """How far each kind of layer looks back, None for all the way. No answer where layers remember anything but keys
    and values, or count a window of theirs in columns."""
    if "local" in getattr(config, "attention_layers", ()):
        return None
    layers = DynamicCache(config=config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    found = [getattr(layer, "sliding_window", None) for layer in layers]
    kinds = getattr(config, "layer_types", None) or [
        "full_attention" if window is None else "sliding_attention" for window in found
    ]
    return dict(zip(kinds, found, strict=False)) if set(kinds) <= _KINDS else None


def mask(
    place: ragged.Place, windows: Mapping[str, int | None], dtype: torch.dtype
) -> Tensor | dict[str, Tensor] | None:
    """The additive mask (B or 1, 1, T, S), one for each kind of layer where there are several; None where
    transformers needs none to do the same."""
    reached = any(window is not None and place.slots > window for window in windows.values())
    if place.even and (place.most == 0 or place.count == 1) and not reached:
        return None
    masks = {kind: ragged.additive(place.visible(window), dtype)[:, None] for kind, window in windows.items()}
    return masks if len(masks) > 1 else next(iter(masks.values()))
