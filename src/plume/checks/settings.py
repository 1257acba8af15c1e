"""D5: recipes and generation settings that cannot do what they seem to ask.

Rates and steps are judged against what Plume itself would choose for the same data and model, so its own
choices are never found wanting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plume.recipe import Recipe
from plume.types import Example, Finding, Source

_RATE_RANGE = 10  # a rate so many times the usual one diverges or, that much smaller, learns nothing in time
_STEPS_RANGE = 5
_ENOUGH_STEPS = 1500  # beyond these, fewer than usual is a choice and no mistake
_MEMORISED = 50  # epochs

# What transformers takes each setting for when it is left out: naming such a value asks for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "temperature": (None, 1.0),
    "top_p": (None, 1.0),
    "top_k": (None, 0, 50),
    "min_p": (None, 0.0),
    "typical_p": (None, 1.0),
}


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a complete recipe is judged by. `usual_rate` and `usual_steps` are Plume's own choices for this data,
    model and batch size; `steps_per_epoch` counts optimiser steps."""

    steps_per_epoch: int
    usual_rate: float
    usual_steps: int


def settings_findings(recipe: Recipe, facts: RunFacts) -> Iterator[Finding]:
    """D501 and D502 about a complete recipe. Warnings: a person may want exactly this."""
    source = Source(recipe.data)
    yield from _rate(recipe, facts, source)
    yield from _amount(recipe, facts, source)
    yield from _intervals(recipe, source)


def _rate(recipe: Recipe, facts: RunFacts, source: Source) -> Iterator[Finding]:
    rate, steps = recipe.peak_learning_rate, recipe.max_steps or 0
    hint = f"leave learning_rate out, or set about {facts.usual_rate:g}"
    if rate > facts.usual_rate * _RATE_RANGE:
        message = f"learning_rate={rate:g} is {rate / facts.usual_rate:.0f} times what {_name(recipe)} learns well with"
        yield Finding("D501", "warning", source, f"{message}; training may diverge", hint)
    way, usual_way = rate * steps, facts.usual_rate * min(facts.usual_steps, _ENOUGH_STEPS)
    if rate < facts.usual_rate and way * _RATE_RANGE < usual_way and rate * _STEPS_RANGE < facts.usual_rate:
        message = (
            f"learning_rate={rate:g} for {steps} steps moves the weights {usual_way / way:.0f} times less than usual"
        )
        yield Finding("D501", "warning", source, f"{message}; little or nothing will be learnt", hint)


def _amount(recipe: Recipe, facts: RunFacts, source: Source) -> Iterator[Finding]:
    steps = recipe.max_steps or 0
    epochs = steps / facts.steps_per_epoch
    if steps * _STEPS_RANGE <= min(facts.usual_steps, _ENOUGH_STEPS):
        made = f"{steps} steps ({epochs:.3g} epochs of {facts.steps_per_epoch})"
        message = f"{made} are too few: about {facts.usual_steps} are usual for this data"
        usual_epochs = f"num_train_epochs near {facts.usual_steps / facts.steps_per_epoch:.3g}"
        hint = f"leave max_steps and num_train_epochs out, or set max_steps near {facts.usual_steps}, or {usual_epochs}"
        yield Finding("D502", "warning", source, message, hint)
    elif steps > _STEPS_RANGE * facts.usual_steps and epochs > _MEMORISED:
        message = (
            f"each row is read {epochs:.0f} times, about {facts.usual_steps / facts.steps_per_epoch:.0f} are usual"
        )
        hint = f"set max_steps near {facts.usual_steps}: beyond that the rows are learnt by heart, and nothing else"
        yield Finding("D502", "warning", source, message, hint)


def _intervals(recipe: Recipe, source: Source) -> Iterator[Finding]:
    steps, warmup = recipe.max_steps or 0, recipe.warmup_steps or 0
    if warmup >= steps:
        reached = f"the learning rate ends at {steps}/{warmup + 1} of its value"
        message = f"warmup_steps={warmup} is not shorter than the run of {steps} steps: {reached}"
        yield Finding("D502", "warning", source, message, f"set warmup_steps={steps // 10}")
    for key, what in (("eval_steps", "evaluated"), ("save_steps", "saved")):
        interval = getattr(recipe, key) or 0
        if interval > steps:
            message = f"{key}={interval} is longer than the run of {steps} steps: it is {what} at the end only"
            yield Finding("D502", "warning", source, message, f"set {key}={max(1, steps // 8)}")


def _name(recipe: Recipe) -> str:
    return recipe.model if recipe.model in ("gpt", "gru", "bigram") else "a model of this size"


def sampling_findings(settings: Mapping[str, Any], source: Source) -> Iterator[Finding]:
    """D503: generation settings, under Hugging Face's names, that contradict or cancel one another.

    They are read as transformers reads a file: greedy unless `do_sample` is set. Plume's own `--set` refuses
    such settings before anything is asked.
    """
    samples = bool(settings.get("do_sample"))
    beams = int(settings.get("num_beams") or 1)
    given = {name: settings[name] for name, neutral in _NEUTRAL.items() if settings.get(name) not in neutral}
    shown = ", ".join(f"{name}={value:g}" for name, value in given.items())
    if not samples and given:
        yield Finding(
            "D503",
            "error",
            source,
            f"{shown} without do_sample: ignored, the likeliest {'beam' if beams > 1 else 'token'} is always taken",
            "set do_sample=true, or leave them out",
        )
    if samples and settings.get("temperature") == 0:
        yield Finding(
            "D503",
            "error",
            source,
            "temperature=0 with do_sample=true: a division by zero",
            "set do_sample=false for the likeliest answer, or a temperature above 0",
        )
    if samples and beams > 1:
        message = f"do_sample=true with num_beams={beams}: beams are drawn by chance, then kept by likelihood"
        yield Finding("D503", "error", source, message, "use one of the two: num_beams=1, or do_sample=false")
    if beams == 1:
        idle = ["early_stopping"] if settings.get("early_stopping") else []
        idle += ["length_penalty"] if settings.get("length_penalty") not in (None, 1.0) else []
        if idle:
            message = f"{' and '.join(idle)} with one beam: ignored"
            yield Finding("D503", "error", source, message, f"leave {' and '.join(idle)} out")


def asking_findings(taught: Sequence[Example], asked: Sequence[Example]) -> Iterator[Finding]:
    """D506: rows asked under another system prompt than the only one that was trained."""
    known = {_system(example) for example in taught if not example.is_text}
    if len(known) != 1:
        return
    trained = next(iter(known))
    other = [example for example in asked if not example.is_text and _system(example) != trained]
    if other:
        here = _system(other[0])
        message = f"{len(other)} of {len(asked)} rows {_said(here)}, while every training row {_said(trained)}"
        hint = "ask under the system prompt that was trained, or train rows of both kinds"
        related = tuple(example.source for example in other[1:6])
        yield Finding("D506", "error", other[0].source, message, hint, related, quote=here)


def template_findings(trained: str, found: str, source: Source) -> Iterator[Finding]:
    """D506: a model directory whose chat template is no longer the one it was trained with."""
    if trained.strip() != found.strip():
        message = "the chat template is not the one that the model was trained with"
        hint = "restore chat_template.jinja from the run: asked in another form, a model answers nothing it learnt"
        yield Finding("D506", "error", source, message, hint)


def _system(example: Example) -> str:
    return "\n".join(message.content for message in example.messages if message.role == "system")


def _said(system: str) -> str:
    short = system if len(system) <= 40 else system[:39] + "…"
    return f"have the system prompt {short!r}" if system else "have no system prompt"
