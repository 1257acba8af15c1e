"""One optimiser step, and what is asked between steps."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Sequence

import torch
from torch.nn.parallel import DistributedDataParallel

from plume.events import Step
from plume.recipe import Recipe
from plume.training.batches import Batch
from plume.training.learner import Learner
from plume.training.measure import spread
from plume.training.optim import learning_rate, schedule
from plume.training.prepare import Prepared
from plume.training.sharding import whole
from plume.types import EvaluationKind, Example


def step_once(
    learner: Learner, group: Sequence[tuple[float, Batch]], step: int, recipe: Recipe, *, scale: float = 1.0
) -> Step:
    """One optimiser step: the summed token loss divided by the trained tokens of the whole group of batches.

    Each process takes its share of every batch. `scale` multiplies the recipe's rates. Weights are left alone when loss
    or gradient is not finite; the caller reads that from the event.
    """
    began = time.perf_counter()
    learner.model.train(True)
    tokens = max(1, sum(batch.trained for _, batch in group))
    for settings in learner.optimizer.param_groups:
        settings["lr"] = settings["initial_lr"] * schedule(step, recipe) * scale
    learner.optimizer.zero_grad()
    at_most = recipe.per_device_train_batch_size or 1
    passes = [
        (f"{number}/{place}", part)
        for number, (_, batch) in enumerate(group)
        for place, part in enumerate(learner.share(batch, at_most))
    ]
    total = torch.zeros((), device=learner.device)
    for position, (place, part) in enumerate(passes, 1):
        _seed(f"{recipe.seed}/{step}/{place}/{learner.world.rank}")
        with _apart(learner) if position < len(passes) else contextlib.nullcontext():
            loss = learner.objective(part) / tokens
            (loss * learner.world.size).backward()  # processes average their gradients
        total += loss.detach()
    total = learner.world.sum(total)
    norm = whole(torch.nn.utils.clip_grad_norm_(learner.model.parameters(), recipe.max_grad_norm))
    loss_value, norm_value = float(total), float(norm)
    if math.isfinite(loss_value) and math.isfinite(norm_value):
        learner.optimizer.step()
    seconds = max(time.perf_counter() - began, 1e-9)
    rate = learning_rate(step, recipe) * scale
    return Step(step, recipe.max_steps or 0, group[-1][0], loss_value, rate, norm_value, tokens, seconds)


def _seed(place: str) -> None:
    """Dropout is a function of the place in the run, so nothing random needs to be kept for a resumed one."""
    digest = hashlib.blake2b(place.encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest, "big"))


def _apart(learner: Learner) -> contextlib.AbstractContextManager[None]:
    """Gradients of this pass stay in this process: one exchange a step is enough."""
    if isinstance(learner.objective, DistributedDataParallel):
        apart: contextlib.AbstractContextManager[None] = learner.objective.no_sync()
        return apart
    return contextlib.nullcontext()


def questions(prepared: Prepared) -> tuple[Sequence[Example], EvaluationKind]:
    """What is asked during training: held-out rows, or training rows when nothing is held out."""
    limit = prepared.recipe.eval_samples
    if prepared.split.held_out:
        return spread(prepared.split.held_out, limit), "held_out"
    return spread(prepared.recall, limit), "recall"
