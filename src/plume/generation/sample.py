"""From logits to the next token. Filters apply in transformers' order: temperature, top-k, top-p."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from plume.errors import UserError
from plume.recipe import unknown_key
from plume.types import Sampling


def choose(logits_V: Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """One token id from one row of logits; the most likely one at temperature 0."""
    if generator is None:
        return int(logits_V.argmax())
    probabilities_V = filtered(logits_V, sampling).softmax(dim=-1)
    return int(torch.multinomial(probabilities_V, 1, generator=generator))


def filtered(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """Logits at this temperature with what top-k and top-p exclude at minus infinity."""
    logits_V = logits_V.float() / sampling.temperature
    if 0 < sampling.top_k < len(logits_V):
        smallest = logits_V.topk(sampling.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < smallest, float("-inf"))
    if sampling.top_p < 1.0:
        ascending, order = logits_V.sort()
        outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - sampling.top_p
        outside[-1] = False
        logits_V = logits_V.masked_fill(torch.zeros_like(outside).scatter(0, order, outside), float("-inf"))
    return logits_V


def generator_for(sampling: Sampling, row: int) -> torch.Generator | None:
    """The row's own source of chance, so that no row depends on its neighbours; None when greedy."""
    if sampling.temperature == 0:
        return None
    return torch.Generator().manual_seed(sampling.seed + row)


def make_sampling(settings: Mapping[str, Any], defaults: Sampling) -> Sampling:
    """Sampling from `--set` keys. Raises UserError for an unknown key, a wrong value, or one without effect."""
    known = [field.name for field in fields(Sampling)]
    for key in settings:
        if key not in known:
            raise unknown_key(key, known, "--set")
    values = dict(settings)
    if isinstance(values.get("stop"), str):
        values["stop"] = (values["stop"],)
    if isinstance(values.get("stop"), list):
        values["stop"] = tuple(str(text) for text in values["stop"])
    sampling = replace(defaults, **values)
    _check(sampling, settings)
    return sampling


def _check(sampling: Sampling, given: Mapping[str, Any]) -> None:
    bounds: dict[str, tuple[tuple[type, ...], Callable[[Any], bool], str]] = {
        "max_new_tokens": ((int,), lambda count: count >= 1, "a whole number of at least 1"),
        "temperature": ((int, float), lambda degree: 0 <= degree < float("inf"), "0 (greedy) or more"),
        "top_k": ((int,), lambda count: count >= 0, "0 (off) or a number of tokens"),
        "top_p": ((int, float), lambda share: 0 < share <= 1, "above 0 and at most 1"),
        "seed": ((int,), lambda seed: 0 <= seed < 2**63, "a whole number from 0 to 2**63 - 1"),
        "stop": ((tuple,), all, "a text, or a list of texts, none empty"),
    }
    for name, (kinds, allowed, words) in bounds.items():
        value = getattr(sampling, name)
        if isinstance(value, bool) or not isinstance(value, kinds) or not allowed(value):
            raise UserError(f"--set {name}={given.get(name)!r}: must be {words}")
    idle = [name for name in ("top_k", "top_p", "seed") if name in given]
    if sampling.temperature == 0 and idle:
        raise UserError(
            f"--set {idle[0]} has no effect at temperature 0: the most likely token is always taken",
            f"add --set temperature=0.8, or leave {idle[0]} out",
        )
