"""When training ends before its last step: a function of what the recipe and the progress say, so a resumed run
decides as the whole one did."""

from __future__ import annotations

from plume.recipe import Recipe


def stale_evaluations(step: int, best_step: int, eval_steps: int) -> int:
    """How many evaluations the first `step` steps had since the best one. All lie on multiples of `eval_steps`."""
    return step // eval_steps - best_step // eval_steps


def reason_to_stop(recipe: Recipe, step: int, best_step: int) -> str | None:
    """Why to train no further than `step`; None to go on.

    A checkpoint between two evaluations answers as the evaluation before it did.
    """
    patience, interval = recipe.early_stopping_patience or 0, recipe.eval_steps or 0
    if not patience or not interval or step >= (recipe.max_steps or 0):
        return None
    stale = stale_evaluations(step, best_step, interval)
    if stale < patience:
        return None
    return f"{stale} evaluations in a row were no better than that of step {best_step}"
