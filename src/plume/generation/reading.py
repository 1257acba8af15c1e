"""A prompt read in stretches, for those who keep their own state. Shape suffixes: B batch, T time, C width."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from plume.types import LanguageModel, State

_STRETCH = 512  # tokens: others may take a step between two of them


def read(model: LanguageModel, ids: Sequence[int]) -> Generator[None, None, tuple[Tensor, State]]:
    """Hidden states (1, T, C) of the last stretch, and the state behind it."""
    device = next(model.parameters()).device
    model.train(False)
    state: State | None = None
    for start in range(0, len(ids), _STRETCH):
        if start:
            yield None
        with torch.inference_mode():
            hidden_BTC, state = model(torch.tensor([ids[start : start + _STRETCH]], device=device), state)
    assert state is not None
    return hidden_BTC, state


def read_through(model: LanguageModel, ids: Sequence[int]) -> tuple[Tensor, State]:
    """The same without a pause."""
    reading = read(model, ids)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            hidden_BTC, state = end.value
            return hidden_BTC, state
