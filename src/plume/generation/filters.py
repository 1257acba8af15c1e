"""What each setting does to scores, one plain function each; transformers' semantics where it has the setting, OpenAI's
for presence and frequency. What is excluded stands at minus infinity.

Shape suffixes: V vocabulary, N any part of it, S tokens seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

NONE = float("-inf")
_FRONT = 1024  # so many are sorted first: the mass is nearly always there, and 50,000 take milliseconds to sort


def logit_bias(scores_V: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add to the scores of single tokens."""
    ids = torch.tensor(list(bias), device=scores_V.device)
    return scores_V.index_add(0, ids, scores_V.new_tensor(list(bias.values())))


def repetition_penalty(scores_V: Tensor, ids_S: Tensor, penalty: float) -> Tensor:
    """Divide positive scores of tokens seen in prompt or reply, multiply negative ones (Keskar et al. 2019)."""
    ids_S = ids_S.to(scores_V.device)
    scores_S = scores_V[ids_S]
    return scores_V.index_copy(0, ids_S, torch.where(scores_S < 0, scores_S * penalty, scores_S / penalty))


def frequency_penalty(scores_V: Tensor, ids_S: Tensor, counts_S: Tensor, penalty: float) -> Tensor:
    """Subtract as many times as the reply has said a token."""
    return scores_V.index_add(0, ids_S.to(scores_V.device), counts_S.to(scores_V), alpha=-penalty)


def presence_penalty(scores_V: Tensor, ids_S: Tensor, penalty: float) -> Tensor:
    """Subtract once from every token that the reply has said."""
    return scores_V.index_add(0, ids_S.to(scores_V.device), scores_V.new_full((len(ids_S),), -penalty))


def without(scores_V: Tensor, ids: Sequence[int]) -> Tensor:
    """Exclude tokens."""
    return scores_V.index_fill(0, torch.tensor(ids, device=scores_V.device), NONE) if ids else scores_V


def top_k(scores_N: Tensor, k: int) -> Tensor:
    """Keep the k likeliest, and what is exactly as likely as the last of them."""
    smallest = scores_N.topk(min(k, len(scores_N))).values[-1]
    return scores_N.masked_fill(scores_N < smallest, NONE)


def top_p(scores_N: Tensor, mass: float) -> Tensor:
    """Keep the likeliest until they have this mass, the one that reaches it included (Holtzman et al. 2019)."""
    probabilities_N = scores_N.softmax(dim=-1)
    order = _first(probabilities_N, probabilities_N, mass)
    best = probabilities_N[order]
    kept = order[best.cumsum(dim=-1, dtype=torch.float64) - best < mass]
    return torch.full_like(scores_N, NONE).index_copy(0, kept, scores_N[kept])


def min_p(scores_N: Tensor, share: float) -> Tensor:
    """Exclude what has less than this share of the likeliest token's probability (Nguyen et al. 2024)."""
    probabilities_N = scores_N.softmax(dim=-1)
    return scores_N.masked_fill(probabilities_N < share * probabilities_N.max(), NONE)


def typical_p(scores_N: Tensor, mass: float) -> Tensor:
    """Keep what is nearly as surprising as the model expects to be, up to this mass (Meister et al. 2022)."""
    logprobs_N = scores_N.log_softmax(dim=-1)
    probabilities_N = logprobs_N.exp()
    entropy = -(logprobs_N * probabilities_N).nansum()
    distances_N = (-logprobs_N - entropy).abs()
    order = _first(-distances_N, probabilities_N, mass)
    before = (probabilities_N[order].cumsum(dim=-1) < mass).sum()
    last = order[int(before.clamp(max=len(order) - 1))]
    return scores_N.masked_fill(distances_N > distances_N[last], NONE)


def _first(rank_N: Tensor, probabilities_N: Tensor, mass: float) -> Tensor:
    """The places of the highest ranked, best first: at least as many as have this mass, if they can."""
    order = rank_N.topk(min(_FRONT, len(rank_N))).indices
    if len(order) < len(rank_N) and float(probabilities_N[order].sum()) < mass:
        order = rank_N.argsort(descending=True)
    return order
