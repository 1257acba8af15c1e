"""Weights on disk: safetensors and config.json, nothing that can execute."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from plume.errors import UserError
from plume.files import write_atomic

_QUANTIZED = re.compile(r"model\.int\d+\.(safetensors|json)")
_SAMPLES, _SAMPLE = 64, 4096  # of the bytes of a file, by which one set of weights is told from another
_BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "F16": 16, "BF16": 16, "I16": 16}


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself: the metadata, and type and number of values of every tensor."""

    metadata: Mapping[str, str]
    dtypes: Mapping[str, str]
    numels: Mapping[str, int]

    @property
    def nbytes_f32(self) -> int:
        """What its tensors take as float32."""
        return 4 * sum(self.numels.values())

    @property
    def nbytes(self) -> int:
        """What its tensors take as they are."""
        return sum(count * _BITS.get(self.dtypes[name], 8) // 8 for name, count in self.numels.items())


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Save tensors, each with its own memory. Raises OSError when the disk is full."""
    owned = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        safetensors.torch.save_file(owned, file, metadata={"format": "pt", **(metadata or {})})
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


def read_header(file: Path) -> Header:
    """The header of a safetensors file, without its tensors. Raises UserError when it is missing or damaged."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            described = json.loads(stream.read(size))
        metadata = described.pop("__metadata__", {})
        dtypes = {name: str(tensor["dtype"]) for name, tensor in described.items()}
        return Header(metadata, dtypes, {name: prod(tensor["shape"]) for name, tensor in described.items()})
    except (OSError, ValueError, OverflowError, MemoryError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged: {error}", "restore it from a checkpoint or the model's source") from None


def weight_files(directory: Path) -> list[Path]:
    """The files with a model's own weights, quantised copies apart."""
    return sorted(file for file in directory.glob("*.safetensors") if not is_quantized(file))


def quantized_file(directory: Path, kind: str) -> Path:
    return directory / f"model.{kind}.safetensors"


def is_quantized(file: Path) -> bool:
    """Is this a quantised copy of the weights, or what was measured of one?"""
    return _QUANTIZED.fullmatch(file.name) is not None


def sampled_fingerprint(directory: Path) -> str | None:
    """sha256 over sizes, headers and evenly spaced pieces of the weights; None where there are none.

    It costs no reading of whole files, and any training changes nearly every number.
    """
    files = weight_files(directory)
    whole = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        whole.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            for number in range(_SAMPLES):
                stream.seek(max(0, size - _SAMPLE) * number // (_SAMPLES - 1))
                whole.update(stream.read(_SAMPLE))
    return whole.hexdigest() if files else None


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
