"""Checkpoints: everything a run needs to go on exactly as if it had never stopped.

A directory named step-NNNNNN is complete; one under construction bears another name. Its state.json has a sha256 of
every other file, so damage is noticed before anything is read into a model.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from plume.errors import PlumeError
from plume.files import atomic_directory, write_atomic
from plume.models.weights import read_tensors, write_tensors
from plume.training.learner import Learner
from plume.training.optim import optimizer_tensors, restore_optimizer
from plume.training.sharding import fill_in
from plume.training.watch import Watch, settled
from plume.types import LanguageModel

_PROGRESS = "progress"
_WEIGHTS, _OPTIMIZER = "model.safetensors", "optimizer.safetensors"


class Damaged(PlumeError):
    """A checkpoint's files are not those that were written."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after `step` steps; `best_key` orders checkpoints, larger is better."""

    step: int = 0
    best_step: int = 0
    best_key: tuple[float, ...] = ()
    seconds: float = 0.0
    watch: Watch = field(default_factory=Watch)


def save_checkpoint(folder: Path, learner: Learner, progress: Progress) -> Path:
    """Write step-NNNNNN atomically; all processes call it, the main one writes. Raises OSError."""
    path = at_step(folder, progress.step)
    tensors = {_WEIGHTS: learner.tensors(), _OPTIMIZER: optimizer_tensors(learner.model, learner.optimizer)}
    if learner.world.main:
        _write(path, tensors, asdict(progress))
    return path


def _write(path: Path, tensors: Mapping[str, Mapping[str, Tensor]], progress: Mapping[str, Any]) -> None:
    with atomic_directory(path) as building:
        for name, named in tensors.items():
            write_tensors(building / name, named)
        digests = {name: _digest(building / name) for name in tensors}
        digests[_PROGRESS] = hashlib.sha256(json.dumps(progress).encode()).hexdigest()
        write_atomic(building / "state.json", json.dumps({"progress": progress, "sha256": digests}))


def load_checkpoint(path: Path, learner: Learner) -> Progress:
    """Restore weights and optimiser; returns where the run stood. Raises Damaged."""
    progress = _intact(path)
    learner.restore(read_tensors(path / _WEIGHTS))
    restore_optimizer(learner.model, learner.optimizer, read_tensors(path / _OPTIMIZER))
    return progress


def load_weights(path: Path, model: LanguageModel) -> None:
    """Restore the weights alone. Raises Damaged."""
    _intact(path)
    fill_in(model, read_tensors(path / _WEIGHTS))


def _intact(path: Path) -> Progress:
    """Where the run stood, once every file was found to be what was written."""
    hint = "delete it, and resume from an earlier one"
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        known, digests = state[_PROGRESS], state["sha256"]
        found = {name: _digest(path / name) for name in (_WEIGHTS, _OPTIMIZER)}
        found[_PROGRESS] = hashlib.sha256(json.dumps(known).encode()).hexdigest()
        wrong = [name for name, digest in found.items() if digests[name] != digest]
        watch = Watch(**{**known["watch"], "losses": tuple(known["watch"]["losses"])})
        progress = Progress(**{**known, "best_key": tuple(known["best_key"]), "watch": watch})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged: {error!r}", hint) from None
    if wrong:
        raise Damaged(f"{path} is damaged: {wrong[0]} has changed", hint)
    return progress


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def at_step(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = folder.iterdir() if folder.is_dir() else []
    complete = [path for path in found if re.fullmatch(r"step-\d{6,}", path.name)]
    return sorted(complete, key=step_of)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def prune(folder: Path, keep: int, best_step: int) -> None:
    """Delete all but the newest `keep`, the best, and what a roll-back needs: the newest one that a divergence
    noticed now would not have touched, and the one that takes its place."""
    paths = checkpoints(folder)
    untouched = [path for path in paths if step_of(path) <= settled(step_of(paths[-1]))]
    wanted = {*paths[-keep:], *untouched[-1:], *paths[len(untouched) : len(untouched) + 1]}
    for path in paths:
        if path not in wanted and step_of(path) != best_step:
            shutil.rmtree(path)


def forget_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of later steps."""
    for path in checkpoints(folder):
        if step_of(path) > step:
            shutil.rmtree(path)
