"""One optimiser step, and what is asked between steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from plume.errors import RunFailed
from plume.recipe import Recipe
from plume.training.batches import IGNORE, Batch
from plume.training.measure import spread
from plume.training.optim import learning_rate, schedule
from plume.training.prepare import Prepared
from plume.types import EvaluationKind, Example, LanguageModel, Step


def step_once(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    stream: Iterator[tuple[float, Batch]],
    step: int,
    recipe: Recipe,
) -> Step:
    """One optimiser step: the summed token loss divided by the trained tokens of the whole accumulation."""
    began = time.perf_counter()
    model.train(True)
    group = [next(stream) for _ in range(recipe.gradient_accumulation_steps)]
    tokens = max(1, sum(batch.trained for _, batch in group))
    rate = learning_rate(step, recipe)
    for settings in optimizer.param_groups:
        settings["lr"] = settings["initial_lr"] * schedule(step, recipe)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for _, batch in group:
        loss = summed_loss(model, batch) / tokens
        loss.backward()
        total += loss.item()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm))
    if not math.isfinite(total) or not math.isfinite(norm):
        raise RunFailed(
            f"the loss is {total:.4g} and its gradient {norm:.4g} at step {step}: training has diverged",
            f"lower the learning rate: --set learning_rate={rate / 10:.1g}",
        )
    optimizer.step()
    seconds = max(time.perf_counter() - began, 1e-9)
    return Step(step, recipe.max_steps or 0, group[-1][0], total, rate, norm, tokens, seconds)


def summed_loss(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood in nats, summed over trained positions; logits exist at those alone."""
    hidden_BTC, _ = model(batch.ids_BT, None, batch.lengths_B)
    trained_BT = batch.labels_BT != IGNORE
    logits_NV = model.head(hidden_BTC[trained_BT])
    return F.cross_entropy(logits_NV.float(), batch.labels_BT[trained_BT], reduction="sum")


def questions(prepared: Prepared) -> tuple[Sequence[Example], EvaluationKind]:
    """What is asked during training: held-out rows, or training rows when nothing is held out."""
    limit = prepared.recipe.eval_samples
    if prepared.split.held_out:
        return spread(prepared.split.held_out, limit), "held_out"
    return spread(prepared.recall, limit), "recall"
