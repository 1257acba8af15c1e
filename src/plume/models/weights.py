"""Weights on disk: safetensors and config.json, nothing that can execute."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from plume.errors import UserError
from plume.files import write_atomic


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Save tensors, each with its own memory. Raises OSError when the disk is full."""
    owned = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        safetensors.torch.save_file(owned, file, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code.group(1)) if code else errno.EIO, str(error), str(file)) from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Load tensors. Raises UserError when the file is missing or damaged."""
    try:
        return safetensors.torch.load_file(file)
    except FileNotFoundError:
        hint = "Plume reads safetensors only; convert older weights with transformers: model.save_pretrained(DIR)"
        raise UserError(f"{file.parent} has no weights ({file.name} is missing)", hint) from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{file} is damaged: {error}", "restore it from a checkpoint or the model's source") from None


def fill(model: nn.Module, directory: Path) -> None:
    """Give a model (on the meta device) the weights of a directory. Raises UserError when they do not fit."""
    file = directory / "model.safetensors"
    try:
        model.load_state_dict(read_tensors(file), assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} does not fit config.json: {reason}", "restore both from one source") from None


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    write_atomic(directory / "config.json", json.dumps(config, indent=2) + "\n")


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a model directory. Raises UserError when there is none."""
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "name a run directory, or a model directory with config.json, model.safetensors and tokenizer.json"
        raise UserError(f"{directory} is not a model directory (config.json is missing)", hint) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{file} cannot be read: {error}", "restore it from the model's source") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} does not hold an object", "restore it from the model's source")
    return config


def widened(rows: Tensor, count: int) -> nn.Parameter:
    """An embedding or an output layer (or its bias) with `count` rows; new ones start near the mean of the old.

    Near, so that a new token is at first neither likely nor unlike everything known (Hewitt 2021, "Initializing new
    word embeddings for pretrained language models"); a hundredth of their spread tells new tokens apart.
    """
    old = rows.detach()
    mean, spread = old.mean(dim=0), old.std(dim=0, correction=0) / 100
    noise = torch.randn(count - len(old), *old.shape[1:], dtype=old.dtype)
    return nn.Parameter(torch.cat([old, mean + spread * noise]))
