"""Where a run goes on: from its latest whole checkpoint, or, once, from before it diverged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plume.errors import RunFailed
from plume.events import RolledBack, Step
from plume.training.checkpoint import (
    Damaged,
    Progress,
    at_step,
    checkpoints,
    forget_after,
    load_checkpoint,
    step_of,
)
from plume.training.epochs import epoch_plan
from plume.training.learner import Learner
from plume.training.opening import Job
from plume.training.replay import rows_of_epoch
from plume.training.sharding import fill_in
from plume.training.watch import settled

SLOWER = 0.5  # of the recipe's rates, after a divergence
_ROWS_NAMED = 3


def latest(job: Job, learner: Learner) -> tuple[Progress, Sequence[RolledBack]]:
    """Load the newest checkpoint that is as it was written; what is newer and damaged is forgotten."""
    skipped = []
    progress = Progress()
    for path in reversed(checkpoints(job.run.checkpoints)):
        try:
            progress = load_checkpoint(path, learner)
            break
        except Damaged as error:
            skipped.append((step_of(path), error.message))
    learner.world.wait()
    if learner.world.main:
        _forget_after(job, progress)
    return _with_a_best(job, progress), [RolledBack(step, progress.step, why) for step, why in skipped]


def roll_back(job: Job, learner: Learner, event: Step, trouble: str, *, again: bool) -> Progress:
    """Back to the newest checkpoint from before the trouble, or to the start. Raises RunFailed the second time."""
    if again:
        raise _diverged(job, event, trouble)
    good = [path for path in checkpoints(job.run.checkpoints) if step_of(path) <= settled(event.step)]
    if good:
        progress = load_checkpoint(good[-1], learner)
    else:
        fill_in(learner.model, job.prepared.initial_model().state_dict())
        learner.optimizer.state.clear()
        progress = Progress()
    learner.world.wait()
    if learner.world.main:
        _forget_after(job, progress)  # before it is recorded: a run killed in between diverges again, and comes here
        job.run.update(rolled_back={"step": event.step, "to_step": progress.step, "reason": trouble})
    return _with_a_best(job, progress)


def _forget_after(job: Job, progress: Progress) -> None:
    forget_after(job.run.checkpoints, progress.step)
    job.run.forget_after(progress.step)


def _with_a_best(job: Job, progress: Progress) -> Progress:
    """Where the best checkpoint is gone, the present one stands in until a better one comes."""
    if at_step(job.run.checkpoints, progress.best_step).is_dir() or not progress.step:
        return progress
    return replace(progress, best_step=progress.step, best_key=())


def _diverged(job: Job, event: Step, trouble: str) -> RunFailed:
    recent = ", ".join(row for row in _rows_of(job, event.step)[:_ROWS_NAMED])
    return RunFailed(
        f"training has diverged at step {event.step}, although it was rolled back once and its rates halved: {trouble} "
        f"(learning rate {event.learning_rate:.2g}; the step's first rows: {recent})",
        f"lower the learning rate: --set learning_rate={event.learning_rate / 5:.1g}; if it diverges at the same rows "
        "again, look at those",
    )


def _rows_of(job: Job, step: int) -> list[str]:
    """Where the rows of a step stand."""
    prepared, recipe, train = job.prepared, job.prepared.recipe, job.prepared.split.train
    left, epoch = (step - 1) * recipe.gradient_accumulation_steps, 0
    while True:
        plan = epoch_plan(
            rows_of_epoch(prepared.rows, prepared.replay, epoch),
            batch_size=(recipe.per_device_train_batch_size or 1) * job.world_size,
            max_length=recipe.max_length or prepared.bundle.model.context_length,
            seed=recipe.seed,
            epoch=epoch,
            packing=bool(recipe.packing),
        )
        if left < len(plan):
            rows = [piece.row for piece in plan[left]]
            return [str(train[row].source) if row < len(train) else f"a draw of {recipe.replay}" for row in rows]
        left, epoch = left - len(plan), epoch + 1
