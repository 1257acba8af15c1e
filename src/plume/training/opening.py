"""A run is opened, new or resumed: by the main process, which tells the others what came of it."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from plume.checks.selection import kept, selection
from plume.errors import RunFailed, UserError
from plume.events import Choice, Preflight
from plume.recipe import Recipe, parse_recipe
from plume.runs import Run, refuse_occupied
from plume.training.devices import choose_bf16
from plume.training.learner import refuse_place
from plume.training.plan import taken, unset
from plume.training.preflight import preflight
from plume.training.prepare import Prepared, prepare, refuse
from plume.training.processes import World, as_launched
from plume.training.range_test import with_tested_rate
from plume.training.sources import fingerprints
from plume.training.trackers import require_trackers


@dataclass(frozen=True, slots=True)
class Job:
    """A prepared run. It was begun by `world_size` processes, which fixed how many rows a step has; `slowed` when it
    was rolled back before."""

    prepared: Prepared
    run: Run
    planned: Preflight | None
    world_size: int
    slowed: bool


def opened(recipe: Recipe, path: Path, world: World, *, resume: bool, force: bool, probe: bool) -> Job | None:
    """The job, the same in every process; None when there is nothing left to do. Raises as `train` does."""
    job = None
    try:
        if world.main:
            job = _resumed(path) if resume else _new(recipe, path, world, force=force, probe=probe)
    except BaseException:
        world.told(None)  # the others leave without a word, and are waited for
        world.wait()
        raise
    word = world.told(job and {"recipe": job.prepared.recipe.model_dump(), "began": job.world_size, "slow": job.slowed})
    if word is None or world.main:
        return job
    prepared = prepare(parse_recipe(word["recipe"], str(path)), force=True)
    return Job(prepared, Run(path), None, word["began"], word["slow"])


def _new(recipe: Recipe, path: Path, world: World, *, force: bool, probe: bool) -> Job:
    planned = None
    refuse_occupied(path)
    require_trackers(recipe.report_to)
    prepared = with_tested_rate(_placed(prepare(as_launched(recipe), force=force), world))
    if probe and prepared.recipe.device == "cpu":
        planned = preflight(prepared)
        planned = replace(planned, findings=tuple(kept(planned.findings, selection())))
        refuse(planned.findings, prepared.recipe.data, force=force)
        prepared = replace(prepared, findings=(*prepared.findings, *planned.findings))
    run = Run.create(path, prepared.recipe, {**_facts(prepared, forced=force), "world_size": world.size})
    return Job(prepared, run, planned, world.size, slowed=False)


def _placed(prepared: Prepared, world: World) -> Prepared:
    """With the device and the precision as choices, so that a resumed run takes no others. Raises UserError."""
    device = refuse_place(prepared.recipe, world)
    bf16 = choose_bf16(prepared.bundle.model, device)
    chosen = {"device": Choice(device.type, "the best that is here"), "bf16": bf16}
    found = unset(prepared.recipe, **chosen)
    return replace(prepared, recipe=taken(prepared.recipe, found), choices={**prepared.choices, **found})


def _resumed(path: Path) -> Job | None:
    run = Run.open(path)
    info = run.info()
    if info["status"] == "finished":
        return None
    require_trackers(run.recipe().report_to)
    _refuse_changed_data(run)
    prepared = prepare(run.recipe(), force=True)
    run.update(status="running", failure=None)
    return Job(prepared, run, None, info.get("world_size", 1), slowed=bool(info.get("rolled_back")))


def record_end(run: Run, error: BaseException) -> None:
    """Why a run ended before its end; what interrupts it can be gone on from later."""
    if isinstance(error, RunFailed):
        run.update(status="failed", failure=error.message)
    elif run.info()["status"] == "running":  # Ctrl-C, a closed generator, a full disk
        with contextlib.suppress(OSError):
            run.update(status="interrupted")


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
    }


def _refuse_changed_data(run: Run) -> None:
    known = run.info()["data"]
    for file, digest in fingerprints(run.recipe()).items():
        if digest != known.get(file):
            raise UserError(
                f"{file} has changed since the run began: resuming would train on something else",
                "restore the file, or start a new run in another --output-dir",
            )
