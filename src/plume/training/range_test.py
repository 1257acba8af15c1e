"""`learning_rate=auto`: which rate suits model and data, found by trying growing ones on a copy of the model.

The learning-rate range test of Smith 2017 (Cyclical Learning Rates for Training Neural Networks, section 3.3): a fixed
number of steps, each at a rate larger than the last by the same factor, over the batches that training begins with. The
test changes nothing that training sees: the copy has an optimiser of its own, and torch's random state is put back.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from statistics import median

import torch

from plume.events import Choice
from plume.processors import processes
from plume.training.batches import batches
from plume.training.devices import move, pick_device
from plume.training.learner import alone
from plume.training.optim import make_optimizer
from plume.training.plan import MUON_OTHERS_RATE, MUON_RATE, taken
from plume.training.preflight import facts
from plume.training.prepare import Prepared
from plume.training.processes import World
from plume.training.step import step_once

_STEPS = 60
_MUON_TIMES = MUON_RATE / MUON_OTHERS_RATE
_LOWEST, _HIGHEST = 1e-5, 1.0
_DIVERGED = 1.5  # a loss that much above where it began ends the test

_BELOW = 3  # the rate kept is so many times smaller than the one at which the loss was lowest
_LEARNT = 0.98  # of the first loss: a test whose loss falls no further says nothing

Curve = tuple[tuple[float, float], ...]


def with_tested_rate(prepared: Prepared) -> Prepared:
    """The same with a number for learning_rate, where the recipe says `auto`."""
    if prepared.recipe.learning_rate != "auto":
        return prepared
    curve = tried_rates(prepared)
    found = best_rate(curve)
    usual = facts(prepared).usual_rate
    why = f"a third of where the loss was lowest in {len(curve)} trial steps"
    choices = {"learning_rate": Choice(found, why) if found else Choice(usual, "usual: no trial step lowered the loss")}
    rate = found or usual
    if prepared.recipe.optim == "muon" and prepared.recipe.muon_learning_rate is None:
        choices["muon_learning_rate"] = Choice(float(f"{rate * _MUON_TIMES:.2g}"), "in its usual proportion")
    recipe = taken(prepared.recipe, choices)
    return replace(prepared, recipe=recipe, choices={**choices, **prepared.choices}, range_test=curve)


def best_rate(curve: Curve) -> float | None:
    """A third of the rate at which the smoothed loss is lowest; None when it hardly falls.

    Smoothed by the median of five, so that neither one easy batch nor one spike decides. What Smith proposes, the rate
    where the loss falls fastest, lay up to five times too low when a model starts from nothing.
    """
    losses = [loss for _, loss in curve]
    smooth = [median(losses[max(0, at - 2) : at + 3]) for at in range(len(losses))]
    if not smooth or min(smooth) > _LEARNT * losses[0]:
        return None
    return float(f"{curve[smooth.index(min(smooth))][0] / _BELOW:.2g}")


def tried_rates(prepared: Prepared) -> Curve:
    """Rates in growing order with the loss that each step began with. Ends early where training diverges.

    With Muon both rates grow together, in their usual proportion, unless Muon's is fixed; learning_rate is AdamW's.
    """
    bundle = prepared.bundle
    factor = (_HIGHEST / _LOWEST) ** (1 / (_STEPS - 1))
    recipe = prepared.recipe.model_copy(
        update={
            "learning_rate": _LOWEST,
            "muon_learning_rate": prepared.recipe.muon_learning_rate or _LOWEST * _MUON_TIMES,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "max_steps": _STEPS,
        }
    )
    stream = batches(
        prepared.rows,
        batch_size=(recipe.per_device_train_batch_size or 1) * processes(),
        max_length=recipe.max_length or bundle.model.context_length,
        pad_id=bundle.tokenizer.pad_id,
        seed=recipe.seed,
        packing=bool(recipe.packing),
        replay=prepared.replay,
    )
    curve: list[tuple[float, float]] = []
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = copy.deepcopy(bundle.model)
        move(model, pick_device(recipe, World()))
        learner = alone(model, make_optimizer(model, recipe), bf16=bool(recipe.bf16))
        for step in range(1, _STEPS + 1):
            group = [next(stream) for _ in range(recipe.gradient_accumulation_steps)]
            done = step_once(learner, group, step, recipe)
            if not math.isfinite(done.loss):
                break
            curve.append((done.learning_rate * factor ** (step - 1), done.loss))
            if done.loss > _DIVERGED * curve[0][1]:
                break
            for settings in learner.optimizer.param_groups:
                if "momentum" not in settings or prepared.recipe.muon_learning_rate is None:
                    settings["initial_lr"] *= factor
    return tuple(curve)
