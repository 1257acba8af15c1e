"""The architectures, by name. Each is one module with `build(sizes)` (ours only) and `load(directory)`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from plume.errors import UserError
from plume.models import memory
from plume.models.quantized import existing_file, load_quantized
from plume.models.weights import read_config
from plume.types import LanguageModel

# Modules are named, not imported: opening one architecture must not cost the import time of all.
CATALOG = {"bigram": "plume.models.bigram", "gru": "plume.models.gru", "gpt": "plume.models.gpt"}
_ANY = "plume.models.hf"
LIMITS = {
    "bigram": "a bigram predicts each token from the one before it alone: it cannot take the question into account, "
    "nor know how far the answer has come; --model gru or --model gpt can",
}
_BY_TYPE = {"plume_bigram": "bigram", "plume_gru": "gru"}


def build_model(name: str, sizes: Mapping[str, Any]) -> LanguageModel:
    """An untrained model of a catalogue name; which sizes it needs, its module says."""
    build: Callable[[Mapping[str, Any]], LanguageModel] = importlib.import_module(CATALOG[name]).build
    return build(sizes)


def parameter_count(name: str, sizes: Mapping[str, Any]) -> int:
    """How many numbers such a model would train; it is laid out, but takes no memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(name, sizes).parameters())


def load_model(directory: Path, quantization: str | None = None) -> LanguageModel:
    """The model of a directory: ours when it was saved by ours, else through transformers.

    Raises UserError when it does not fit into memory, or lacks the quantised weights asked for.
    """
    if quantization:
        return load_model_file(directory, existing_file(directory, quantization))
    module = _module(directory)
    memory.refuse_too_large(directory)
    model: LanguageModel = module.load(directory)
    return model


def load_model_file(directory: Path, file: Path) -> LanguageModel:
    """The model of a directory with the weights of a quantised file."""
    module = _module(directory)
    memory.refuse_too_large(directory, file)
    return load_quantized(directory, file, module.empty)


def _module(directory: Path) -> Any:
    config = read_config(directory)
    name = _BY_TYPE.get(config.get("model_type", ""), config.get("plume", ""))
    return importlib.import_module(CATALOG.get(name, _ANY))


def find_directory(name: str) -> Path:
    """The directory behind MODEL: a run, a model directory, or a hub id (`org/name`), fetched when online.

    Raises UserError when there is no such thing.
    """
    path = Path(name)
    if (path / "recipe.yaml").is_file():
        if not (path / "model").is_dir():
            raise UserError(
                f"{path} has no finished model yet", f"finish the run: plume train --resume --output-dir {path}"
            )
        return path / "model"
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path} is a file, not a model directory", "name the directory that holds config.json")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _from_hub(name)
    near = difflib.get_close_matches(name, CATALOG, 1)
    names = ", ".join(sorted(CATALOG))
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"name a run or model directory, a hub id (org/name), or train one of: {names}"
    )
    raise UserError(f"unknown model {name!r}: no such directory", hint)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    files = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"unknown model {name!r}: no such directory here, and the hub could not give it ({first})",
            "download the model directory when online, and name its path",
        ) from None
