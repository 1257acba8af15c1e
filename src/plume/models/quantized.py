"""Models whose matrices are held in 8 or 4 bits: written by `plume export`, opened with `quantization="int8"`.

Weights alone are quantised, rounded to the nearest: symmetric with one scale an output for int8, a scale and a zero
point for every 32 inputs for int4. Embeddings, norms and recurrent layers stay in float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from plume.errors import UserError
from plume.files import atomic_file
from plume.models.lowbit import GROUP, Int4Linear, Int8Linear, int4_of, int8_of
from plume.models.weights import quantized_file, read_header, read_tensors, sampled_fingerprint, write_tensors
from plume.types import LanguageModel

Quantization = Literal["int8", "int4"]
KINDS: tuple[str, ...] = get_args(Quantization)
_LEAST = 16  # outputs; below, a matrix is too small for a gain
_TOLERANCE = 1e-2  # of a probe: a rounding that falls the other way, layer upon layer
_Layer = type[Int8Linear] | type[Int4Linear]


@runtime_checkable
class _Probed(Protocol):
    """A model that is looked at once it has its weights."""

    def probe(self, tolerance: float) -> None: ...


@runtime_checkable
class _Tied(Protocol):
    """A model whose output layer may be its embeddings; `untie` gives it one of its own, with the same numbers."""

    def untie(self) -> None: ...


def quantized_tensors(model: LanguageModel, kind: Quantization) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model with its matrices quantised, by the names that they have in the file.

    The head keeps 8 bits in int4 too, and a tied one is written beside the embeddings it was; the model stays as it is.
    """
    _untie(model)
    root = _root(model)
    plan = _plan(root, kind)
    for name, tensor in root.state_dict().items():
        layer = plan.get(name.removesuffix(".weight"))
        if layer is None or not name.endswith(".weight"):
            yield name, tensor
            continue
        prefix = name.removesuffix("weight")
        module = root.get_submodule(prefix.removesuffix("."))
        matrix_NK = tensor if isinstance(module, nn.Linear) else tensor.t()
        made = int4_of(matrix_NK) if layer is Int4Linear else int8_of(matrix_NK)
        yield from ((prefix + part, value) for part, value in made.items())


def write_quantized(model: LanguageModel, kind: Quantization, source: Path, file: Path) -> None:
    """Write the quantised tensors of the model of directory `source`, whole or not at all."""
    facts = {"plume_quantization": json.dumps({"kind": kind, "source": sampled_fingerprint(source)})}
    with atomic_file(file) as beside:
        write_tensors(beside, dict(quantized_tensors(model, kind)), facts)


def load_quantized(directory: Path, file: Path, empty: Callable[[Path], LanguageModel]) -> LanguageModel:
    """The model of a directory with the weights of a quantised file; `empty` makes it without memory for weights.

    Raises UserError when the file was made of other weights than those of the directory.
    """
    header = read_header(file)
    _refuse_stale(directory, file, header.metadata)
    model = empty(directory)
    _untie(model)
    root = _root(model)
    for name, layer in _layers_of(header.dtypes).items():
        old = root.get_submodule(name)
        inputs, outputs = _sizes(old)
        with torch.device("meta"):
            root.set_submodule(name, layer(inputs, outputs, bias=getattr(old, "bias", None) is not None))
    _fill(root, file)
    if isinstance(model, _Probed):
        model.probe(_TOLERANCE)
    return model


def existing_file(directory: Path, kind: str) -> Path:
    """The quantised file of a model directory. Raises UserError when `kind` is unknown or there is none."""
    if kind not in KINDS:
        raise UserError(f"unknown quantization {kind!r}", f"choose one of: {', '.join(KINDS)}")
    file = quantized_file(directory, kind)
    if not file.is_file():
        raise UserError(
            f"{directory} has no {kind} weights ({file.name} is missing)",
            f"make them, and see what they cost: plume export {directory} --format {kind}",
        )
    return file


def _fill(root: nn.Module, file: Path) -> None:
    try:
        root.load_state_dict(read_tensors(file), assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} does not fit config.json: {reason}", "export it again from the model") from None
    left = [name for name, tensor in (*root.named_parameters(), *root.named_buffers()) if tensor.is_meta]
    if left:
        raise UserError(f"{file} lacks {left[0]}", "export it again from the model")
    for parameter in root.parameters():
        parameter.requires_grad_(False)
    for module in root.modules():
        if isinstance(module, Int8Linear | Int4Linear):
            module.pack()


def _refuse_stale(directory: Path, file: Path, metadata: Mapping[str, str]) -> None:
    try:
        made_of = json.loads(metadata["plume_quantization"])["source"]
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{file} was not written by plume export", "export it again from the model") from None
    now = sampled_fingerprint(directory)
    if now is not None and now != made_of:
        raise UserError(
            f"{file} was made of other weights than those beside it",
            f"export it again: plume export {directory} --format {file.name.split('.')[-2]}",
        )


def _plan(root: nn.Module, kind: Quantization) -> dict[str, _Layer]:
    """Which layer takes whose place. The kernel of int4 reads 32 inputs and 16 outputs at a time."""
    head = _head_name(root)
    plan: dict[str, _Layer] = {}
    for name, module in root.named_modules():
        if type(module) is not nn.Linear and type(module).__name__ != "Conv1D":
            continue
        inputs, outputs = _sizes(module)
        four = kind == "int4" and name != head and inputs % GROUP == 0 and outputs % 16 == 0
        if outputs >= _LEAST:
            plan[name] = Int4Linear if four else Int8Linear
    return plan


def _layers_of(dtypes: Mapping[str, str]) -> dict[str, _Layer]:
    """The same, read off the types in a file."""
    kinds: dict[str, _Layer] = {"I8": Int8Linear, "U8": Int4Linear}
    return {
        name.removesuffix(".weight"): kinds[dtype]
        for name, dtype in dtypes.items()
        if name.endswith(".weight") and dtype in kinds
    }


def _sizes(layer: Any) -> tuple[int, int]:
    """Inputs and outputs of a Linear (N, K) or a Conv1D (K, N)."""
    first, second = layer.weight.shape
    return (int(second), int(first)) if isinstance(layer, nn.Linear) else (int(first), int(second))


def _root(model: Any) -> nn.Module:
    """The module whose names stand in the files."""
    root: nn.Module = getattr(model, "inner", model)
    return root


def _head_name(root: Any) -> str:
    """The name of the output layer: lm_head in our own, whatever transformers says in others."""
    if hasattr(root, "lm_head"):
        return "lm_head"
    head = root.get_output_embeddings()
    name: str = next(name for name, module in root.named_modules() if module is head)
    return name


def _untie(model: LanguageModel) -> None:
    if isinstance(model, _Tied):
        model.untie()
