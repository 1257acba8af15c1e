"""After the last step: the result is saved, opened again, proven, and scored beside its baseline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from plume.data.split import prompt_key
from plume.errors import RunFailed
from plume.evaluation.metrics import summarise
from plume.evaluation.report import write_report
from plume.evaluation.results import result, rounded
from plume.evaluation.run import evaluate
from plume.files import atomic_directory, write_atomic
from plume.generation.engine import Engine
from plume.models.bundle import Bundle, load, save
from plume.models.catalog import LIMITS
from plume.runs import Run
from plume.training.card import model_card
from plume.training.checkpoint import Progress, load_weights
from plume.training.prepare import Prepared, baseline, initial_model
from plume.types import EvaluationKind, Example, Finding, Finished, Message, Sampling, Scored, Source

_RECALL_ROWS = 512
_BASELINE_ROWS = 64
_PROBES = 8
_TEXT_STRETCHES, _STRETCH = 50, 2000  # of training text scored at the end, in characters


def finish(prepared: Prepared, run: Run, progress: Progress, elapsed: Callable[[], float]) -> Finished:
    """Save the best weights as a model directory, prove it, score it. Raises RunFailed when the proof fails."""
    made = prepared.bundle
    load_weights(run.checkpoints / f"step-{progress.best_step:06d}", made.model)
    _prove_weights(prepared)
    with atomic_directory(run.model) as building:
        save(made, building, model_card(prepared, {}))
    reloaded = load(run.model)
    _prove_reloaded(prepared, made, reloaded)
    scored = {
        kind: list(evaluate(Engine(reloaded), rows, taught=_known(prepared, kind)))
        for kind, rows in asked_at_the_end(prepared).items()
    }
    compared, name = _baseline(prepared)
    scores = {kind: summarise(rows) for kind, rows in scored.items()}
    findings = tuple(_about_run(run, scores, {kind: summarise(rows) for kind, rows in compared.items()}))
    for kind, rows in scored.items():
        run.write_eval(kind, result(str(run.path), prepared.recipe.data, rows, compared[kind], name))
    write_atomic(run.model / "README.md", model_card(prepared, scores))
    entropy = bigram_entropy(prepared) if prepared.is_text else None
    sample = sample_text(Engine(reloaded), prepared) if prepared.is_text else None
    limit = LIMITS.get(prepared.recipe.model)
    seconds = elapsed()
    run.update(
        status="finished",
        train_seconds=round(seconds, 2),
        best_step=progress.best_step,
        scores={kind: rounded(values) for kind, values in scores.items()},
        findings=[*run.info()["findings"], *(f"{found.code} {found.message}" for found in findings)],
        bigram_entropy=entropy,
        limit=limit,
    )
    return Finished(
        step=progress.step,
        best_step=progress.best_step,
        model=run.model,
        report=write_report(run),
        seconds=seconds,
        scores=scores,
        baseline={kind: summarise(rows) for kind, rows in compared.items()},
        sample=sample,
        bigram_entropy=entropy,
        limit=limit,
        findings=findings,
    )


def asked_at_the_end(prepared: Prepared) -> dict[EvaluationKind, Sequence[Example]]:
    """Held-out rows where there are any, and always training rows: recall."""
    asked: dict[EvaluationKind, Sequence[Example]] = {}
    if prepared.split.held_out:
        asked["held_out"] = prepared.split.held_out
    asked["recall"] = recall_rows(prepared.split.train)
    return asked


def _known(prepared: Prepared, kind: EvaluationKind) -> frozenset[str]:
    return prepared.taught if kind == "held_out" else frozenset()


def recall_rows(train: Sequence[Example]) -> Sequence[Example]:
    """Distinct training questions that have one answer; of plain text, stretches from all over it."""
    if any(example.is_text for example in train):
        return [stretch for example in train for stretch in _stretches(example, len(train))][:_RECALL_ROWS]
    answers: dict[str, set[tuple[str, ...]]] = {}
    for example in train:
        answers.setdefault(prompt_key(example), set()).add(tuple(turn.reply.content for turn in example.turns()))
    first = {prompt_key(example): example for example in reversed(train) if len(answers[prompt_key(example)]) == 1}
    rows = [example for example in train if first.get(prompt_key(example)) is example]
    return (rows or list(train))[:_RECALL_ROWS]


def _stretches(example: Example, documents: int) -> list[Example]:
    text = example.messages[0].content
    count = max(1, _TEXT_STRETCHES // documents)
    if len(text) <= count * _STRETCH:
        return [example]
    starts = [index * (len(text) - _STRETCH) // max(1, count - 1) for index in range(count)]
    return [replace(example, messages=(Message("assistant", text[at : at + _STRETCH]),)) for at in starts]


def bigram_entropy(prepared: Prepared) -> float:
    """Nats per token that the best bigram table leaves on the training text: the limit of a bigram model."""
    pairs: Counter[tuple[int, int]] = Counter()
    for row in prepared.rows:
        pairs.update(zip(row.ids, row.ids[1:], strict=False))
    singles: Counter[int] = Counter()
    for (first, _), count in pairs.items():
        singles[first] += count
    total = sum(pairs.values())
    return -sum(count * math.log(count / singles[first]) for (first, _), count in pairs.items()) / max(1, total)


def _prove_weights(prepared: Prepared) -> None:
    before = dict(initial_model(prepared).named_parameters())
    changed = False
    for name, parameter in prepared.bundle.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise RunFailed(f"the weights of {name} are not finite", "lower the learning rate")
        changed |= not torch.equal(parameter, before[name])
    if not changed:
        raise RunFailed("no weight changed in training", "raise the learning rate or max_steps")


def _prove_reloaded(prepared: Prepared, made: Bundle, reloaded: Bundle) -> None:
    """The saved directory must answer, token for token, as the model in memory does."""
    sampling = Sampling(max_new_tokens=min(32, made.max_new_tokens))
    ours, theirs = Engine(made), Engine(reloaded)
    turns = [turn for example in prepared.split.train[:_PROBES] for turn in example.turns() if turn.history]
    prompts = [ours.prompt(turn.history) for turn in turns[:_PROBES]] or [prepared.rows[0].ids[:16]]
    if [theirs.prompt(turn.history) for turn in turns[:_PROBES]] != prompts[: len(turns)]:
        raise RunFailed("the reloaded tokenizer or template reads a question differently")
    before = [answer.ids for answer in ours.generate(prompts, sampling)]
    if [answer.ids for answer in theirs.generate(prompts, sampling)] != before:
        raise RunFailed("the reloaded model answers differently")


def _baseline(prepared: Prepared) -> tuple[dict[EvaluationKind, list[Scored]], str]:
    """The first questions of each kind to the model before training."""
    compared, name = baseline(prepared.recipe, prepared.bundle)
    rows = {
        kind: list(
            evaluate(
                Engine(compared),
                examples[:_BASELINE_ROWS],
                max_new_tokens=prepared.bundle.max_new_tokens,
                taught=_known(prepared, kind),
            )
        )
        for kind, examples in asked_at_the_end(prepared).items()
    }
    return rows, name


def sample_text(engine: Engine, prepared: Prepared) -> str:
    """A continuation of the first words of the training text, at a temperature that shows what was learnt."""
    first = prepared.split.train[0].messages[0].content.strip()[:16]
    ids = prepared.bundle.tokenizer.encode(first) or [prepared.bundle.tokenizer.eos_id]
    sampling = Sampling(max_new_tokens=prepared.bundle.max_new_tokens, temperature=0.8, seed=prepared.recipe.seed)
    return first + "".join(chunk.text for chunk in engine.stream(ids, sampling, reply=False))


def _about_run(run: Run, scores: dict[EvaluationKind, Any], baseline: dict[EvaluationKind, Any]) -> list[Finding]:
    """D6: what is wrong with a run that did finish."""
    source = Source(str(run.path))
    kind: EvaluationKind = "held_out" if "held_out" in scores else "recall"
    ours, theirs = scores[kind], baseline[kind]
    findings = []
    if ours["stop_rate"] is not None and ours["stop_rate"] < 1:
        message = f"{1 - ours['stop_rate']:.0%} of the answers do not stop by themselves"
        hint = "train longer (max_steps), or use a model that can remember where it is (gpt)"
        findings.append(Finding("D603", "error", source, message, hint))
    worse_answers = (ours["exact_match"] or 0.0) <= (theirs["exact_match"] or 0.0)
    if worse_answers and ours["loss"] is not None and ours["loss"] >= theirs["loss"]:
        message = f"the model is no better than its baseline (loss {ours['loss']:.3f} against {theirs['loss']:.3f})"
        findings.append(Finding("D608", "error", source, message, "train longer, or raise the learning rate"))
    return findings
