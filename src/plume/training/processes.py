"""Several processes on one or more machines: who this one is, and the few words they exchange.

`torchrun` and `accelerate launch` start the processes and say in the environment who is who; gradients travel through
torch.distributed. What is exchanged here is small and plain: JSON, never pickled objects.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from plume.errors import Disconnected, UserError
from plume.recipe import Recipe

_PATIENCE = timedelta(hours=24)  # the others wait while the first one checks data, evaluates and writes
_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class World:
    """This process among `size`; `local_rank` counts those of one machine. The main one reads, scores and writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        return self.rank == 0

    def told(self, word: Any = None) -> Any:
        """What the main process says, a value that JSON can hold, in every process."""
        if self.size == 1:
            return word
        device = _device()
        text = json.dumps(word).encode() if self.main else b""
        length = torch.tensor([len(text)], device=device)
        dist.broadcast(length, src=0)
        held = torch.zeros(int(length), dtype=torch.uint8, device=device)
        if self.main:
            held.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(held, src=0)
        return json.loads(bytes(held.cpu().tolist()))

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in every process."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def refuse_several(what: str) -> None:
    """Raise UserError when the environment speaks of several processes, for what is done by one."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"{what} is done by one process, and was started as several", "start it without torchrun")


@contextlib.contextmanager
def joined(run: Path) -> Iterator[World]:
    """The processes that the environment speaks of, together on a run for as long as the context lasts.

    Raises UserError when the environment speaks of several processes but not of all it must, Disconnected when
    another process ended.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        yield World()
        return
    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE={size} but {missing[0]} is not set: several processes cannot find one another",
            "start them with torchrun or accelerate launch, or unset WORLD_SIZE",
        )
    world = World(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield world
        world.wait()
    except RuntimeError as error:
        if "peer" in str(error) or isinstance(error, dist.DistError):
            raise Disconnected(
                f"another process of this run has ended, so process {world.rank} of {size} ends too",
                f"what stopped it stands in its own output; continue with: plume train --resume --output-dir {run}",
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def as_launched(recipe: Recipe) -> Recipe:
    """The recipe with what `accelerate launch` was asked for. Raises UserError for a precision that is not offered."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16"):
        raise UserError(
            f"accelerate launch --mixed_precision {precision}: Plume trains in float32 or bf16", "take bf16"
        )
    wishes: dict[str, bool] = {}
    if precision == "bf16" and recipe.bf16 is None:
        wishes["bf16"] = True
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        wishes["fsdp"] = True
    return recipe.model_copy(update=wishes)


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
