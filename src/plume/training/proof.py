"""A result is only a result when it is finite, has changed, and answers the same once it is opened again."""

from __future__ import annotations

import torch

from plume.errors import RunFailed
from plume.generation.engine import Engine
from plume.models.bundle import Bundle
from plume.text.calls import tools_of
from plume.training.prepare import Prepared
from plume.types import Sampling

_PROBES = 8


def prove_weights(prepared: Prepared) -> None:
    """Raises RunFailed when a weight is not finite, or none differs from the start."""
    before = dict(prepared.initial_model().named_parameters())
    changed = False
    for name, parameter in prepared.bundle.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise RunFailed(f"the weights of {name} are not finite", "lower the learning rate")
        changed |= not torch.equal(parameter, before[name])
    if not changed:
        raise RunFailed("no weight changed in training", "raise the learning rate or max_steps")


def prove_reloaded(prepared: Prepared, made: Bundle, reloaded: Bundle) -> None:
    """The saved directory must answer, token for token, as the model in memory does; else RunFailed."""
    sampling = Sampling(max_new_tokens=min(32, made.max_new_tokens))
    ours, theirs = Engine(made), Engine(reloaded)
    turns = [turn for example in prepared.split.train[:_PROBES] for turn in example.turns() if turn.history]
    prompts = [ours.prompt(turn.history, tools_of(turn.tools)) for turn in turns[:_PROBES]] or [
        prepared.rows[0].ids[:16]
    ]
    if [theirs.prompt(turn.history, tools_of(turn.tools)) for turn in turns[:_PROBES]] != prompts[: len(turns)]:
        raise RunFailed("the reloaded tokenizer or template reads a question differently")
    before = [answer.ids for answer in ours.generate(prompts, sampling)]
    if [answer.ids for answer in theirs.generate(prompts, sampling)] != before:
        raise RunFailed("the reloaded model answers differently")
