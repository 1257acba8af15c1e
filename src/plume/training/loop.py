"""The training loop: a generator of events. Closing it cancels; what was saved stays resumable."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from plume.checks.selection import kept, selection
from plume.errors import RunFailed, UserError
from plume.evaluation.metrics import summarise
from plume.evaluation.run import evaluate
from plume.generation.engine import Engine
from plume.recipe import Recipe
from plume.runs import Run, refuse_occupied
from plume.training.batches import Batch, batches
from plume.training.checkpoint import Progress, checkpoints, load_checkpoint, prune, save_checkpoint
from plume.training.finish import finish
from plume.training.measure import sample_text, taught
from plume.training.optim import make_optimizer
from plume.training.preflight import preflight
from plume.training.prepare import Prepared, prepare, refuse
from plume.training.range_test import with_tested_rate
from plume.training.sources import fingerprints
from plume.training.step import questions, step_once
from plume.training.stopping import reason_to_stop
from plume.types import Evaluated, EvaluationKind, Example, Preflight, Saved, Started, Step, Stopped, TrainEvent


def train(
    recipe: Recipe,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    force: bool = False,
    probe: bool = False,
) -> Generator[TrainEvent, None, None]:
    """Train by a recipe into a run directory and yield what happens.

    With `resume` the run in `output_dir` goes on from its last complete checkpoint with its own recipe, and
    ends bit for bit where it would have ended (CPU, same threads); a finished run yields nothing. With `probe`, a new
    run first tries a few steps on a copy of the model, to say what memory and time it will take.
    Raises UserError (DataError for rows) before anything is written, RunFailed when the result is no good.
    """
    path = Path(output_dir)
    planned = None
    if resume:
        run = Run.open(path)
        if run.info()["status"] == "finished":
            return
        recipe = run.recipe()
        _refuse_changed_data(run)
        prepared = prepare(recipe, force=True)
        run.update(status="running", failure=None)
    else:
        refuse_occupied(path)
        prepared = with_tested_rate(prepare(recipe, force=force))
        if probe:
            planned = preflight(prepared)
            planned = replace(planned, findings=tuple(kept(planned.findings, selection())))
            refuse(planned.findings, prepared.recipe.data, force=force)
            prepared = replace(prepared, findings=(*prepared.findings, *planned.findings))
        run = Run.create(path, prepared.recipe, _facts(prepared, forced=force))
    try:
        yield from _train(prepared, run, planned)
    except RunFailed as error:
        run.update(status="failed", failure=error.message)
        raise
    except BaseException:  # Ctrl-C, a closed generator, a full disk: all of them can go on later
        if run.info()["status"] == "running":
            with contextlib.suppress(OSError):
                run.update(status="interrupted")
        raise


def _train(prepared: Prepared, run: Run, planned: Preflight | None) -> Iterator[TrainEvent]:
    recipe, model = prepared.recipe, prepared.bundle.model
    began = time.monotonic()
    optimizer = make_optimizer(model, recipe)
    saved = checkpoints(run.checkpoints)
    torch.manual_seed(recipe.seed)
    progress = load_checkpoint(saved[-1], model, optimizer) if saved else Progress()
    run.forget_after(progress.step)
    before = progress.seconds
    parameters = sum(parameter.numel() for parameter in model.parameters())
    yield Started(
        prepared.recipe,
        run.path,
        prepared.findings,
        prepared.choices,
        prepared.split.reason,
        parameters,
        prepared.trained_tokens,
        progress.step,
        planned,
    )
    asked, kind = questions(prepared)
    last = recipe.max_steps or 0
    stream = _batches(prepared, skip=progress.step * recipe.gradient_accumulation_steps)
    for step in range(progress.step + 1, last + 1):
        if reason := reason_to_stop(recipe, progress.step, progress.best_step):
            run.update(stopped_early=progress.step)
            yield Stopped(progress.step, reason)
            break
        event = step_once(model, optimizer, stream, step, recipe)
        if step % recipe.logging_steps == 0 or step in (1, last):
            run.log(run.metrics_file, _row(event))
        yield event
        due = step % (recipe.eval_steps or last) == 0 or step == last
        best = False
        if due:
            evaluated, key = _evaluate(prepared, asked, kind, step, progress.best_key)
            best = evaluated.best
            run.log(run.metrics_file, {"step": step, "kind": kind, **evaluated.scores})
            run.log(run.samples_file, {"step": step, "sample": evaluated.sample})
            if best:
                progress = replace(progress, best_step=step, best_key=key)
            yield evaluated
        progress = replace(progress, step=step, seconds=before + time.monotonic() - began)
        if best or due or step % (recipe.save_steps or last) == 0:
            path = save_checkpoint(run.checkpoints, model, optimizer, progress)
            prune(run.checkpoints, recipe.save_total_limit, progress.best_step)
            yield Saved(step, path)
    yield finish(prepared, run, progress, lambda: before + time.monotonic() - began)


def _batches(prepared: Prepared, skip: int) -> Iterator[tuple[float, Batch]]:
    recipe = prepared.recipe
    return batches(
        prepared.rows,
        batch_size=recipe.per_device_train_batch_size or 1,
        max_length=recipe.max_length or prepared.bundle.model.context_length,
        pad_id=prepared.bundle.tokenizer.pad_id,
        seed=recipe.seed,
        skip=skip,
    )


def _evaluate(
    prepared: Prepared, asked: Sequence[Example], kind: EvaluationKind, step: int, best_key: tuple[float, ...]
) -> tuple[Evaluated, tuple[float, ...]]:
    """Scores now; better means more exact answers, then a lower loss."""
    began = time.monotonic()
    engine = Engine(prepared.bundle)
    rows = list(evaluate(engine, asked, taught=taught(prepared, kind)))
    scores = summarise(rows)
    if not math.isfinite(scores["loss"] or 0.0):
        raise RunFailed(f"the evaluation loss is {scores['loss']} after step {step}", "lower the learning rate")
    key = (scores["exact_match"] or 0.0, -(scores["loss"] or 0.0))
    sample = sample_text(engine, prepared) if prepared.is_text else f"{rows[0].prompt} → {rows[0].answer}"
    best = not best_key or key > best_key
    return Evaluated(step, kind, scores, sample, best, time.monotonic() - began), key


def _facts(prepared: Prepared, *, forced: bool) -> dict[str, Any]:
    return {
        "data": fingerprints(prepared.recipe),
        "split": prepared.split.reason,
        "train_rows": len(prepared.split.train),
        "held_out": [str(example.source) for example in prepared.split.held_out],
        "trained_tokens": prepared.trained_tokens,
        "parameters": sum(parameter.numel() for parameter in prepared.bundle.model.parameters()),
        "forced": forced,
        "choices": {key: asdict(choice) for key, choice in prepared.choices.items()},
        **({"learning_rate_range_test": prepared.range_test} if prepared.range_test else {}),
        "findings": [f"{found.severity} {found.source}: {found.code} {found.message}" for found in prepared.findings],
        "device": "cpu",
    }


def _row(event: Step) -> dict[str, Any]:
    return {
        "step": event.step,
        "epoch": round(event.epoch, 4),
        "train_loss": event.loss,
        "learning_rate": event.learning_rate,
        "grad_norm": event.grad_norm,
        "tokens_per_second": round(event.tokens / event.seconds, 1),
    }


def _refuse_changed_data(run: Run) -> None:
    known = run.info()["data"]
    for file, digest in fingerprints(run.recipe()).items():
        if digest != known.get(file):
            raise UserError(
                f"{file} has changed since the run began: resuming would train on something else",
                "restore the file, or start a new run in another --output-dir",
            )
