"""Adapters on a frozen base, through PEFT: LoRA (Hu et al. 2021) and DoRA (Liu et al. 2024).

PEFT puts its layers into the model in place, so an adapted model is called as its base is. What is saved is the
adapter alone, in PEFT's own layout, with the name and the fingerprint of the base it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from plume.errors import DataError, UserError
from plume.files import write_atomic
from plume.models.catalog import find_directory
from plume.models.weights import read_tensors, weight_files, write_tensors
from plume.runs import fingerprint
from plume.types import Finding, LanguageModel, Source

CONFIG_FILE = "adapter_config.json"
_WEIGHTS_FILE, _BASE_FILE = "adapter_model.safetensors", "base.json"
_NAME = "default"
_PREFIX = "base_model.model."  # of every tensor in PEFT's files


@dataclass(frozen=True, slots=True)
class Lora:
    """Names and meanings are PEFT's; no `target_modules` means every linear layer but the output layer."""

    r: int
    lora_alpha: int
    lora_dropout: float = 0.0
    use_dora: bool = False
    target_modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adapter:
    """What was put into a model: PEFT's tuner around it, its settings, and the base they belong to."""

    tuner: Any
    settings: Lora
    base: str
    base_sha256: str


def attach(model: LanguageModel, settings: Lora, base: str, new_ids: Sequence[int] = ()) -> Adapter:
    """Freeze a model and put a new adapter into it; the embeddings of `new_ids` are trained too.

    `base` is the MODEL that was opened. The adapter starts as no change; its random half draws on torch's generator.
    Raises DataError with D509 when a target matches no layer.
    """
    config = _peft().LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_dora=settings.use_dora,
        target_modules=_targets(_root(model), settings.target_modules, base),
        fan_in_fan_out=any(type(layer).__name__ == "Conv1D" for _, layer in _linear_layers(_root(model))),
        task_type="CAUSAL_LM",
        base_model_name_or_path=_lasting_name(base),
        **_trained_words(_root(model), new_ids),
    )
    return _inject(model, config, base_fingerprint(find_directory(base)))


def load_adapter(directory: Path, model: LanguageModel) -> Adapter:
    """Put a saved adapter into its base. Raises UserError when it is damaged or does not fit."""
    peft = _peft()
    config = _read_config(directory)
    try:
        adapter = _inject(model, config, base_fingerprint(base_of(directory)))
        root, tensors = adapter.tuner.model, read_tensors(directory / _WEIGHTS_FILE)
        given = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        loaded = peft.set_peft_model_state_dict(root, given)
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        raise _unfit(directory, " ".join(str(error).split())[:200]) from None
    learnt = {name for name, parameter in root.named_parameters() if parameter.requires_grad}
    if wrong := [*loaded.unexpected_keys, *sorted(learnt & set(loaded.missing_keys))]:
        raise _unfit(directory, f"its weights and {CONFIG_FILE} do not fit together: {wrong[0]}")
    return adapter


def save_adapter(adapter: Adapter, directory: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors as PEFT does, and base.json."""
    config = {**_config(adapter).to_dict(), "inference_mode": True}
    sortable = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    write_atomic(directory / CONFIG_FILE, json.dumps(sortable, indent=2, sort_keys=True) + "\n")
    tensors = _peft().get_peft_model_state_dict(adapter.tuner.model, save_embedding_layers=False)
    write_tensors(directory / _WEIGHTS_FILE, {_PREFIX + name: tensor for name, tensor in tensors.items()})
    base = {"base_model_name_or_path": adapter.base, "sha256": adapter.base_sha256}
    write_atomic(directory / _BASE_FILE, json.dumps(base, indent=2) + "\n")


def merge_adapter(adapter: Adapter) -> None:
    """Add the adapter to the weights it changes, which makes it as fast as its base; `unmerge_adapter` takes it off."""
    adapter.tuner.merge_adapter()


def unmerge_adapter(adapter: Adapter) -> None:
    """Take a merged adapter off again; the weights are those of the base up to rounding."""
    adapter.tuner.unmerge_adapter()


def merge_and_unload(adapter: Adapter) -> None:
    """Merge for good: what is left is an ordinary model, and the adapter is used up."""
    adapter.tuner.merge_and_unload()


def is_adapter(directory: Path) -> bool:
    return (directory / CONFIG_FILE).is_file()


def base_of(directory: Path) -> Path:
    """The directory of an adapter's base. Raises UserError when it is not there, or is not what was trained on."""
    name = str(_read_config(directory).base_model_name_or_path)
    where = f"write where it is now as base_model_name_or_path into {directory / CONFIG_FILE}"
    try:
        found = find_directory(name)
    except UserError:
        raise UserError(f"{directory}: the base of this adapter is gone: {name}", f"put it back, or {where}") from None
    if is_adapter(found):
        raise UserError(
            f"{directory}: the base of this adapter is an adapter itself: {name}",
            f"merge that first: plume merge {name} --output-dir DIR",
        )
    kept = directory / _BASE_FILE
    known = json.loads(kept.read_text(encoding="utf-8"))["sha256"] if kept.is_file() else None
    if known and known != base_fingerprint(found):
        raise UserError(f"{name} is not the base that {directory} was trained on: its weights differ", where)
    return found


def base_fingerprint(directory: Path) -> str:
    """sha256 over config.json and the weights: what the adapter was trained against."""
    whole = hashlib.sha256()
    for file in sorted([directory / "config.json", *weight_files(directory)]):
        whole.update(f"{file.name}\0{fingerprint(str(file))}\0".encode())
    return whole.hexdigest()


def _inject(model: LanguageModel, config: Any, base_sha256: str) -> Adapter:
    from peft.tuners.lora import LoraModel

    config.inference_mode = False
    tuner: Any = LoraModel(_root(model), {_NAME: config}, _NAME)
    settings = Lora(
        config.r, config.lora_alpha, config.lora_dropout, config.use_dora, tuple(sorted(config.target_modules))
    )
    return Adapter(tuner, settings, str(config.base_model_name_or_path), base_sha256)


def _config(adapter: Adapter) -> Any:
    return adapter.tuner.peft_config[_NAME]


def _root(model: Any) -> nn.Module:
    """The module whose names PEFT and transformers know."""
    root: nn.Module = getattr(model, "inner", model)
    return root


def _read_config(directory: Path) -> Any:
    peft = _peft()
    try:
        config = peft.PeftConfig.from_pretrained(str(directory))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise _unfit(directory, " ".join(str(error).split())[:200]) from None
    if config.peft_type != "LORA" or isinstance(config.target_modules, str) or not config.target_modules:
        raise UserError(
            f"{directory} is not a LoRA adapter that names its target_modules",
            "merge it with the tool that made it, and open the merged model",
        )
    return config


def _lasting_name(base: str) -> str:
    """A path that holds from any working directory; a hub id stays what it is."""
    return str(find_directory(base).resolve()) if Path(base).exists() else base


# --- what is adapted -----------------------------------------------------------------------------


def _linear_layers(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every linear layer but the output layer; GPT-2 writes its own as Conv1D."""
    output = getattr(root, "get_output_embeddings", lambda: getattr(root, "lm_head", None))()
    for name, module in root.named_modules():
        if module is not output and (type(module) is nn.Linear or type(module).__name__ == "Conv1D"):
            yield name, module


def _targets(root: nn.Module, wanted: Sequence[str], base: str) -> list[str]:
    """The last parts of names, as PEFT takes them. Raises DataError for one that matches nothing."""
    names = [name for name, _ in _linear_layers(root)]
    known = sorted({name.rpartition(".")[2] for name in names})
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            message = f"lora_target_modules: no linear layer of {base} is called {target!r}"
            hint = f"it has: {', '.join(known)}" if known else "its layers cannot be adapted; train all of it"
            raise DataError(message, [Finding("D509", "error", Source(base), message, hint)], hint)
    if not known:
        message = f"{base} has no linear layer that LoRA could adapt"
        raise DataError(message, [Finding("D509", "error", Source(base), message, "leave lora_r out")])
    return sorted(wanted) or known


def _trained_words(root: Any, new_ids: Sequence[int]) -> dict[str, Any]:
    """How the new rows of embeddings and output layer are trained and kept: alone, where PEFT can do that.

    PEFT's layer for single rows leaves out an output layer's bias, so one with a bias is trained as a whole. A tied
    output layer follows the embeddings by itself.
    """
    if not new_ids:
        return {}
    if not hasattr(root, "get_input_embeddings"):
        raise UserError(
            f"lora_r: the rows add {len(new_ids)} tokens to this model, whose embeddings an adapter cannot train",
            "train all of it: leave lora_r out",
        )
    embeddings, output = root.get_input_embeddings(), root.get_output_embeddings()
    names = {id(module): name for name, module in root.named_modules()}
    rows = {names[id(embeddings)]: list(new_ids)}
    if output is None or output.weight is embeddings.weight:
        return {"trainable_token_indices": rows}
    if output.bias is not None:
        return {"trainable_token_indices": rows, "modules_to_save": [names[id(output)]]}
    return {"trainable_token_indices": {**rows, names[id(output)]: list(new_ids)}}


def _unfit(directory: Path, reason: str) -> UserError:
    return UserError(f"{directory}: the adapter cannot be opened: {reason}", "restore it from its source")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UserError("adapters need the library peft", "pip install 'plume-lm[peft]'") from None
    return peft
