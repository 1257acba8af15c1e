"""GGUF files, as llama.cpp and Ollama open them: tensors, tokenizer and chat template in one.

Names, permutations and keys are those of llama.cpp's own converter. An architecture or a tokenizer that it does not
know is refused by name, and so is anything that its code for a known one would compute in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plume.errors import UserError
from plume.files import atomic_file
from plume.models import gguf_vocabulary
from plume.models.bundle import Bundle
from plume.models.weights import read_config

_NONE = {
    "plume_bigram": "it knows no architecture without attention layers",
    "plume_gru": "it knows no GRU",
    "gpt_neo": "it has no attention that is global and local by turns, as GPT-Neo's is",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """How llama.cpp calls an architecture, which activation it computes there, and what it wants to know."""

    architecture: str
    activation: str
    facts: Callable[[Mapping[str, Any]], dict[str, Any]]


def write_gguf(bundle: Bundle, directory: Path, file: Path, outtype: str) -> None:
    """Write a model with float32 tensors (`f32`), or its matrices in blocks of 8 bits (`q8_0`), whole or not at all.

    Raises UserError where llama.cpp could not compute what Plume computes.
    """
    gguf = _gguf()
    if bundle.adapter:
        raise UserError(
            f"{directory} is an adapter; a gguf file holds a whole model",
            f"merge it first: plume merge {directory} --output-dir DIR",
        )
    config = read_config(directory)
    kind = _kind(config)
    tokenizer = gguf_vocabulary.vocabulary(bundle, bundle.model.vocab_size)
    with atomic_file(file) as beside:
        writer = gguf.GGUFWriter(beside, kind.architecture)
        _describe(writer, gguf, kind.facts(config), directory.resolve(), outtype)
        gguf_vocabulary.add(writer, gguf, bundle, tokenizer)
        for name, tensor in _tensors(bundle, config, kind, gguf):
            _add(writer, gguf, name, tensor, outtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _describe(writer: Any, gguf: Any, facts: Mapping[str, Any], directory: Path, outtype: str) -> None:
    name = directory.parent.name if directory.name == "model" else directory.name
    writer.add_name(name)
    for key, value in facts.items():
        getattr(writer, f"add_{key}")(value)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    types = gguf.LlamaFileType
    writer.add_file_type(types.MOSTLY_Q8_0 if outtype == "q8_0" else types.ALL_F32)


def _kind(config: Mapping[str, Any]) -> _Kind:
    name = str(config.get("model_type", ""))
    if name not in _KINDS:
        reason = _NONE.get(name, f"Plume writes {', '.join(sorted(_KINDS))}")
        raise UserError(
            f"{name} cannot be written as gguf for llama.cpp: {reason}",
            "serve it with Plume: plume export MODEL --format int8 makes it small",
        )
    kind = _KINDS[name]
    activation = str(config.get("hidden_act") or config.get("activation_function"))
    if activation not in (kind.activation, *(("gelu_pytorch_tanh",) if kind.activation == "gelu_new" else ())):
        raise UserError(f"llama.cpp computes {name} with {kind.activation}, not {activation}", "keep it in Plume")
    rope = _rope(config)
    if rope.get("rope_type", "default") != "default":
        raise UserError(
            f"positions stretched by {rope['rope_type']} are not written to gguf yet", "convert it with llama.cpp"
        )
    if config.get("use_sliding_window") or config.get("qk_layernorm"):
        raise UserError(f"this {name} has layers that llama.cpp's does not", "keep it in Plume")
    return kind


def _tensors(bundle: Bundle, config: Mapping[str, Any], kind: _Kind, gguf: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by the name that llama.cpp gives it."""
    root: Any = getattr(bundle.model, "inner", bundle.model)
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == kind.architecture)
    names = gguf.get_tensor_name_map(architecture, config.get("num_hidden_layers") or config["n_layer"])
    for name, tensor in root.state_dict().items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings", kind.architecture == "gpt2"):
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise UserError(f"llama.cpp has no place for the tensor {name}", "keep the model in Plume")
        yield theirs, _arranged(name, tensor, config, kind)


def _arranged(name: str, tensor: Tensor, config: Mapping[str, Any], kind: _Kind) -> Tensor:
    if kind.architecture == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return tensor.t()  # Conv1D holds its matrix the other way round
    if kind.architecture == "llama" and ".self_attn." in name and ".q_proj." in name:
        return _interleaved(tensor, config["num_attention_heads"])
    if kind.architecture == "llama" and ".self_attn." in name and ".k_proj." in name:
        return _interleaved(tensor, config.get("num_key_value_heads") or config["num_attention_heads"])
    return tensor


def _interleaved(rows: Tensor, heads: int) -> Tensor:
    """transformers rotates the halves of a head against each other, llama.cpp's llama neighbours."""
    swapped: Tensor = rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    return swapped


def _add(writer: Any, gguf: Any, name: str, tensor: Tensor, outtype: str) -> None:
    values = tensor.detach().to(torch.float32).contiguous().numpy()
    kind = gguf.GGMLQuantizationType.Q8_0
    if outtype == "q8_0" and values.ndim == 2 and values.shape[1] % 32 == 0 and not name.startswith("position_embd"):
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, values)


# --- what llama.cpp wants to know -----------------------------------------------------------------


def _llama(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "head_count": heads,
        "head_count_kv": config.get("num_key_value_heads") or heads,
        "key_length": width,
        "value_length": width,
        "layer_norm_rms_eps": config["rms_norm_eps"],
        "rope_freq_base": float(_rope(config).get("rope_theta", 10000.0)),
        "rope_dimension_count": width,
        "vocab_size": config["vocab_size"],
    }


def _qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in _llama(config).items() if key != "rope_dimension_count"}


def _gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "context_length": config["n_positions"],
        "embedding_length": config["n_embd"],
        "block_count": config["n_layer"],
        "feed_forward_length": config.get("n_inner") or 4 * config["n_embd"],
        "head_count": config["n_head"],
        "layer_norm_eps": config["layer_norm_epsilon"],
        "vocab_size": config["vocab_size"],
    }


def _phi(config: Mapping[str, Any]) -> dict[str, Any]:
    heads, width = config["num_attention_heads"], config["hidden_size"]
    share = _rope(config).get("partial_rotary_factor", config.get("partial_rotary_factor", 0.5))
    return {
        "context_length": config["max_position_embeddings"],
        "embedding_length": width,
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "head_count": heads,
        "head_count_kv": config.get("num_key_value_heads") or heads,
        "layer_norm_eps": config["layer_norm_eps"],
        "rope_freq_base": float(_rope(config).get("rope_theta", 10000.0)),
        "rope_dimension_count": int(share * width) // heads,
        "vocab_size": config["vocab_size"],
    }


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of rotary positions, as transformers 5 and older ones write them."""
    older = {"rope_theta": config["rope_theta"]} if "rope_theta" in config else {}
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {**older, **given}


_KINDS = {
    "llama": _Kind("llama", "silu", _llama),
    "qwen3": _Kind("qwen3", "silu", _qwen3),
    "gpt2": _Kind("gpt2", "gelu_new", _gpt2),
    "phi": _Kind("phi2", "gelu_new", _phi),
}


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise UserError("gguf files need the library gguf", "pip install 'plume-lm[gguf]'") from None
    return gguf
