"""A softmax in two steps, for vocabularies so large that the whole one takes most of a training step.

Frequent words and one entry a cluster of rare words form the first softmax; a rare word's own softmax runs over
its cluster alone (adaptive softmax, Grave et al. 2017, with one width for all clusters, so that its weights can
be the input embeddings). Ids must stand in order of frequency; the probabilities are exact and sum to one.
Shape suffixes: N tokens, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def summed_loss(
    hidden_NC: Tensor, labels_N: Tensor, weight_VC: Tensor, bias_V: Tensor, entries: torch.nn.Linear, cut: Sequence[int]
) -> Tensor:
    """Negative log-likelihood in nats, summed: each rare word costs its cluster, each frequent one the first alone.

    `cut` are the first ids of the clusters, ascending; `entries` gives the logits of the clusters.
    """
    weights, biases = _parts(weight_VC, cut), _parts(bias_V, cut)
    cluster_N = torch.bucketize(labels_N, torch.tensor(cut, device=labels_N.device), right=True)
    first_N = torch.where(cluster_N == 0, labels_N, cut[0] + cluster_N - 1)
    logits = torch.cat([F.linear(hidden_NC, weights[0], biases[0]), entries(hidden_NC)], dim=-1)
    loss = F.cross_entropy(logits.float(), first_N, reduction="sum")
    for number, start in enumerate(cut, 1):
        here = (cluster_N == number).nonzero().squeeze(1)
        logits = F.linear(hidden_NC[here], weights[number], biases[number])
        loss = loss + F.cross_entropy(logits.float(), labels_N[here] - start, reduction="sum")
    return loss


def log_probabilities(logits: Tensor, entries: Tensor, cut: Sequence[int]) -> Tensor:
    """Log-probabilities (…, V) of every word, from its logits (…, V) and those of the clusters (…, clusters)."""
    frequent, *clusters = logits.split(_sizes(logits.shape[-1], cut), dim=-1)
    first = torch.cat([frequent, entries], dim=-1).log_softmax(dim=-1)
    rare = [cluster.log_softmax(dim=-1) + first[..., cut[0] + number, None] for number, cluster in enumerate(clusters)]
    return torch.cat([first[..., : cut[0]], *rare], dim=-1)


def _parts(tensor: Tensor, cut: Sequence[int]) -> tuple[Tensor, ...]:
    """Rows of the frequent words and of each cluster; one split, so that the backward pass joins them once."""
    parts: tuple[Tensor, ...] = tensor.split(_sizes(len(tensor), cut))
    return parts


def _sizes(count: int, cut: Sequence[int]) -> list[int]:
    return [end - start for start, end in zip([0, *cut], [*cut, count], strict=True)]
