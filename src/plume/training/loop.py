"""The training loop: a generator of events. Closing it cancels; what was saved stays resumable."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from plume.errors import RunFailed
from plume.evaluation.metrics import summarise
from plume.evaluation.run import evaluate
from plume.events import Evaluated, RolledBack, Saved, Started, Stopped, TrainEvent
from plume.generation.engine import Engine
from plume.recipe import Recipe
from plume.training.batches import Batch, batches
from plume.training.checkpoint import Progress, prune, save_checkpoint
from plume.training.finish import finish
from plume.training.learner import Learner, make_learner
from plume.training.measure import sample_text, taught
from plume.training.opening import Job, opened, record_end
from plume.training.prepare import Prepared
from plume.training.processes import World, joined
from plume.training.rollback import SLOWER, latest, roll_back
from plume.training.step import questions, step_once
from plume.training.stopping import reason_to_stop
from plume.training.trackers import step_metrics, tracked
from plume.types import EvaluationKind, Example


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
    Started as several processes (torchrun, accelerate launch), all of them call this and the main one yields events.
    Raises UserError (DataError for rows) before anything is written, RunFailed when the result is no good.
    """
    path = Path(output_dir)
    with joined(path) as world:
        job = opened(recipe, path, world, resume=resume, force=force, probe=probe)
        if job is None:
            return
        try:
            yield from _events(job, world)
        except BaseException as error:
            if world.main:
                record_end(job.run, error)
            raise


def _events(job: Job, world: World) -> Iterator[TrainEvent]:
    """What happens, told by the main process to its caller and to trackers; the others only take part."""
    events = _train(job, world)
    if world.main:
        yield from tracked(events, job.run, job.prepared.recipe)
    else:
        for _ in events:
            pass


def _train(job: Job, world: World) -> Generator[TrainEvent, None, None]:
    recipe, run = job.prepared.recipe, job.run
    began = time.monotonic()
    learner = make_learner(job.prepared.bundle.model, recipe, world)
    progress, skipped = latest(job, learner)
    before = progress.seconds
    yield _started(job, progress)
    yield from skipped
    last = recipe.max_steps or 0
    scale = SLOWER if job.slowed else 1.0
    stream = _batches(job, progress)
    while progress.step < last:
        if reason := reason_to_stop(recipe, progress.step, progress.best_step):
            if world.main:
                run.update(stopped_early=progress.step)
            yield Stopped(progress.step, reason)
            break
        step = progress.step + 1
        group = [next(stream) for _ in range(recipe.gradient_accumulation_steps)]
        event = step_once(learner, group, step, recipe, scale=scale)
        trouble = progress.watch.trouble(event.loss, event.grad_norm)
        if trouble:
            progress = roll_back(job, learner, event, trouble, again=scale < 1)
            yield RolledBack(step, progress.step, trouble)
            scale, stream = SLOWER, _batches(job, progress)
            continue
        if world.main and (step % recipe.logging_steps == 0 or step in (1, last)):
            run.log(run.metrics_file, {"step": step, **step_metrics(event)})
        yield event
        seconds = before + time.monotonic() - began
        progress = replace(progress, step=step, watch=progress.watch.seen(event.loss), seconds=seconds)
        due = step % (recipe.eval_steps or last) == 0 or step == last
        if due:
            evaluated, progress = _evaluated(job, learner, progress)
            yield from evaluated
        if due or step % (recipe.save_steps or last) == 0:
            progress = replace(progress, seconds=before + time.monotonic() - began)
            path = save_checkpoint(run.checkpoints, learner, progress)
            if world.main:
                prune(run.checkpoints, recipe.save_total_limit, progress.best_step)
            yield Saved(step, path)
    if world.main:
        yield finish(job.prepared, run, progress, learner.device, lambda: before + time.monotonic() - began)


def _started(job: Job, progress: Progress) -> Started:
    prepared = job.prepared
    return Started(
        prepared.recipe,
        job.run.path,
        prepared.findings,
        prepared.choices,
        prepared.split.reason,
        sum(parameter.numel() for parameter in prepared.bundle.model.parameters()),
        prepared.trained_tokens,
        progress.step,
        job.planned,
    )


def _batches(job: Job, progress: Progress) -> Iterator[tuple[float, Batch]]:
    """The batches of all processes together, from where a run stands."""
    prepared, recipe = job.prepared, job.prepared.recipe
    return batches(
        prepared.rows,
        batch_size=(recipe.per_device_train_batch_size or 1) * job.world_size,
        max_length=recipe.max_length or prepared.bundle.model.context_length,
        pad_id=prepared.bundle.tokenizer.pad_id,
        seed=recipe.seed,
        packing=bool(recipe.packing),
        replay=prepared.replay,
        skip=progress.step * recipe.gradient_accumulation_steps,
    )


def _evaluated(job: Job, learner: Learner, progress: Progress) -> tuple[Sequence[Evaluated], Progress]:
    """Scores, by the main process for all; better means more exact answers, then a lower loss."""
    learner.publish(job.prepared.bundle.model)
    told: list[Evaluated] = []
    best, key = False, progress.best_key
    if learner.world.main:
        asked, kind = questions(job.prepared)
        evaluated, key = _scores(job.prepared, asked, kind, progress)
        best = evaluated.best
        job.run.log(job.run.metrics_file, {"step": progress.step, "kind": kind, **evaluated.scores})
        job.run.log(job.run.samples_file, {"step": progress.step, "sample": evaluated.sample})
        told.append(evaluated)
    best, key = learner.world.told((best, key))
    return told, replace(progress, best_step=progress.step, best_key=tuple(key)) if best else progress


def _scores(
    prepared: Prepared, asked: Sequence[Example], kind: EvaluationKind, progress: Progress
) -> tuple[Evaluated, tuple[float, ...]]:
    began = time.monotonic()
    engine = Engine(prepared.bundle)
    rows = list(evaluate(engine, asked, taught=taught(prepared, kind)))
    scores = summarise(rows)
    if not math.isfinite(scores["loss"] or 0.0):
        raise RunFailed(
            f"the evaluation loss is {scores['loss']} after step {progress.step}", "lower the learning rate"
        )
    key = (scores["exact_match"] or 0.0, -(scores["loss"] or 0.0))
    sample = sample_text(engine, prepared) if prepared.is_text else f"{rows[0].prompt} → {rows[0].answer}"
    best = not progress.best_key or key > progress.best_key
    return Evaluated(progress.step, kind, scores, sample, best, time.monotonic() - began), key
