"""Checkpoints: everything a run needs to go on exactly as if it had never stopped.

A directory named step-NNNNNN is complete; one under construction bears another name.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from plume.files import atomic_directory, write_atomic
from plume.models.weights import read_tensors, write_tensors
from plume.training.optim import optimizer_tensors, restore_optimizer
from plume.types import LanguageModel


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after `step` steps; `best_key` orders checkpoints, larger is better."""

    step: int = 0
    best_step: int = 0
    best_key: tuple[float, ...] = ()
    seconds: float = 0.0


def save_checkpoint(folder: Path, model: LanguageModel, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
    """Write step-NNNNNN atomically. Raises OSError."""
    path = folder / f"step-{progress.step:06d}"
    with atomic_directory(path) as building:
        write_tensors(building / "model.safetensors", _own_tensors(model))
        tensors = {**optimizer_tensors(model, optimizer), "torch_rng_state": torch.get_rng_state()}
        write_tensors(building / "optimizer.safetensors", tensors)
        write_atomic(building / "state.json", json.dumps(asdict(progress)))
    return path


def load_checkpoint(path: Path, model: LanguageModel, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore weights, optimizer and random state; returns where the run stood."""
    load_weights(path, model)
    tensors = read_tensors(path / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("torch_rng_state"))
    restore_optimizer(model, optimizer, tensors)
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return Progress(**{**state, "best_key": tuple(state["best_key"])})


def load_weights(path: Path, model: LanguageModel) -> None:
    """Restore the weights alone."""
    model.load_state_dict({**model.state_dict(), **read_tensors(path / "model.safetensors")})


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = folder.iterdir() if folder.is_dir() else []
    complete = [path for path in found if re.fullmatch(r"step-\d{6,}", path.name)]
    return sorted(complete, key=lambda path: int(path.name.removeprefix("step-")))


def prune(folder: Path, keep: int, best_step: int) -> None:
    """Delete all but the newest `keep` and the best."""
    for path in checkpoints(folder)[:-keep]:
        if path.name != f"step-{best_step:06d}":
            shutil.rmtree(path)


def _own_tensors(model: LanguageModel) -> dict[str, torch.Tensor]:
    """The state without second names of tied tensors, which loading ties again."""
    seen: set[int] = set()
    own = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            own[name] = tensor
    return own
