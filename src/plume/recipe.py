"""The recipe: every choice a run was made with. Keys have Hugging Face's names; unset ones are chosen from
the data before the first step and written to the run's recipe.yaml, so that `--recipe` repeats the run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from plume.errors import UserError

Positive = Annotated[int, Field(gt=0)]
SIZED = ("gpt", "gru")  # architectures that `model` may name with a size: gpt:small
MODEL_SIZES = ("tiny", "small", "base")


class Recipe(BaseModel):
    """One training run, whole. `None` means: chosen from the data, printed and recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    data: str = Field(default="", description="File of training rows or text.")
    eval_data: str | None = Field(default=None, description="File of evaluation rows; replaces the automatic split.")
    model: str = Field(default="gpt", description="`gpt`, `gru`, `bigram`, or a model directory to fine-tune.")
    replay: str | None = Field(
        default=None, description="File of general text or rows to mix in while fine-tuning; measures forgetting."
    )
    replay_ratio: float | None = Field(
        default=None, ge=0, lt=1, description="Part of the trained tokens drawn from `replay`; 0 only measures."
    )
    model_size: str | None = Field(
        default=None,
        description="`tiny`, `small`, `base`, or a number of parameters such as `3M`; `model: gpt:3M` sets both keys.",
    )
    split_documents: bool = Field(default=False, description="Plain text: blank lines separate documents.")
    prompt_column: str | None = Field(default=None, description="The column that asks (recognised if not named).")
    completion_column: str | None = Field(default=None, description="The column that answers.")
    query: str | None = Field(default=None, description="Which rows, when `data` is a database URL.")
    test_size: float = Field(default=0.1, ge=0, lt=1, description="Fraction of rows held out; 0 trains on all.")
    split_by: Literal["phrasing", "answer"] = Field(
        default="phrasing", description="Hold out wordings of taught answers, or whole answers."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Decides initial weights, split, order and dropout.")

    tokenizer: Literal["bpe", "word", "char"] | None = Field(
        default=None, description="Kind of tokenizer to train; a fine-tuned model keeps its own."
    )
    vocab_size: Positive | None = Field(
        default=None, description="Largest number of token ids (bpe has at least 263: all bytes)."
    )
    template: Literal["chat", "sep", "raw"] | None = Field(
        default=None, description="How messages become text; a fine-tuned model keeps its own."
    )
    max_length: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Longest example, in tokens; also the model's context."
    )
    hidden_size: Positive | None = Field(default=None, description="Width of the model.")
    num_hidden_layers: Positive | None = Field(default=None, description="Depth of the model.")
    num_attention_heads: Positive | None = Field(default=None, description="Attention heads (`gpt`).")
    attention_window: Positive | None = Field(
        default=None, description="Tokens that attention looks back over (`gru`); bounds the memory of decoding."
    )
    dropout: float | None = Field(default=None, ge=0, lt=1, description="Dropout probability while training.")

    max_steps: Positive | None = Field(default=None, description="Optimiser steps.")
    num_train_epochs: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Passes over the training rows; `max_steps` wins over it."
    )
    per_device_train_batch_size: Positive | None = Field(default=None, description="Rows in one forward pass.")
    packing: bool | None = Field(
        default=None,
        description="Several rows in one line, kept apart, instead of batches of similar length.",
    )
    gradient_accumulation_steps: Positive = Field(default=1, description="Forward passes in one step.")
    optim: Literal["adamw", "muon"] | None = Field(
        default=None, description="`muon` makes every step of the layers' matrices orthogonal; the rest is AdamW's."
    )
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        default=None, description="Peak learning rate; `auto` finds it by a range test of a few steps."
    )
    muon_learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Peak rate of what Muon steps (`optim=muon`)."
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="Decay after the warm-up, to a twentieth of the peak; `constant` keeps it."
    )
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Steps of linear warm-up.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decay of matrices, under either optimiser.")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first moment.")
    adam_beta2: float = Field(default=0.98, ge=0, lt=1, description="AdamW's second moment.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")

    lora_r: Positive | None = Field(
        default=None, description="Fine-tuning: train an adapter (LoRA) of this rank, and nothing else."
    )
    lora_alpha: Positive | None = Field(
        default=None, description="Scale of the adapter: alpha / rank; twice the rank if not set (`lora_r`)."
    )
    lora_dropout: float | None = Field(default=None, ge=0, lt=1, description="Dropout before the adapter (`lora_r`).")
    use_dora: bool | None = Field(
        default=None, description="DoRA: also learn how large each output of a layer is (`lora_r`)."
    )
    lora_target_modules: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="Names of the layers adapted; every linear one if not set (`lora_r`)."
    )
    gradient_checkpointing: bool | None = Field(
        default=None,
        description="Compute layers again in the backward pass instead of keeping what they computed; "
        "with an adapter true if not set.",
    )

    report_to: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = Field(
        default=[], description="Trackers that are told what is logged; `none` for none."
    )
    logging_steps: Positive = Field(default=10, description="Steps between lines of metrics.jsonl.")
    eval_steps: Positive | None = Field(default=None, description="Steps between evaluations.")
    early_stopping_patience: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Evaluations without a better one after which training ends; 0: never."
    )
    save_steps: Positive | None = Field(
        default=None, description="Most steps between checkpoints; each evaluation makes one too."
    )
    save_total_limit: Positive = Field(default=2, description="Newest checkpoints kept, beside the best.")
    eval_samples: Positive = Field(default=128, description="Questions answered at each evaluation during training.")
    max_new_tokens: Positive | None = Field(default=None, description="Longest answer, in tokens.")
    device: Literal["cpu", "cuda", "mps"] | None = Field(
        default=None, description="Where training runs: CUDA, else MPS, else the CPU."
    )
    bf16: bool | None = Field(
        default=None,
        description="Products in bfloat16, weights in float32; chosen where the device has units for it and it pays.",
    )
    torch_compile: bool = Field(
        default=False, description="Compile the loss; pays on GPUs and in long runs, and needs a C++ compiler on a CPU."
    )
    fsdp: bool = Field(default=False, description="Under several processes: share out weights and states (FSDP2).")
    torch_num_threads: Positive | None = Field(default=None, description="CPU threads; part of bit-identical repeats.")

    @field_validator("report_to", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One name, names with commas between, or a list of them; `none` is none."""
        names = value.split(",") if isinstance(value, str) else [] if value is None else value
        return [] if names == ["none"] else names

    @model_validator(mode="before")
    @classmethod
    def _part_size_from_model(cls, values: Any) -> Any:
        """`model: gpt:3M` becomes `model: gpt` and `model_size: 3M`, so that a name stays a name everywhere."""
        name, colon, size = str(values.get("model", "")).partition(":")
        if not colon or name not in (*SIZED, "bigram"):
            return values
        if values.get("model_size") not in (None, size):
            message = "model={model} and model_size={size} contradict each other"
            raise PydanticCustomError("two_sizes", message, {"model": values["model"], "size": values["model_size"]})
        return {**values, "model": name, "model_size": size}

    @field_validator("model_size")
    @classmethod
    def _known_size(cls, size: str | None) -> str | None:
        if size is None or size in MODEL_SIZES or budget(size):
            return size
        known = ", ".join(MODEL_SIZES)
        raise PydanticCustomError("unknown_size", f"unknown size; there are {known}, or parameters such as 800k or 3M")

    @property
    def peak_learning_rate(self) -> float:
        """The rate as a number; 0 while it is still to be chosen."""
        return 0.0 if isinstance(self.learning_rate, str) else self.learning_rate or 0.0


def budget(size: str) -> int | None:
    """The number of parameters that `800k`, `3M` or `2_000_000` stands for; None for anything else."""
    found = re.fullmatch(r"(\d+(?:_\d+)*(?:\.\d+)?)([kKmM]?)", size)
    times = {"": 1, "k": 1_000, "m": 1_000_000}
    return round(float(found[1]) * times[found[2].lower()]) or None if found else None


def parse_recipe(values: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Validate keys and values. Raises UserError naming the key, the nearest known one, or the bound."""
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(error, list(Recipe.model_fields), origin) from None


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with Plume, each with its first line, which says what it is for."""
    folder = Path(__file__).parent / "recipes"
    return {
        file.stem: file.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
        for file in sorted(folder.glob("*.yaml"))
    }


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.yaml, or the shipped recipe of that name where there is no such file.

    Raises UserError when it is missing, not YAML, or holds a wrong key or value.
    """
    shipped = shipped_recipes()
    if str(path) in shipped and not path.exists():
        path = Path(__file__).parent / "recipes" / f"{path}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = "; ".join(f"{name}: {what}" for name, what in shipped.items())
        raise UserError(
            f"{path}: no such recipe",
            f"name a YAML file of recipe keys, such as a run's recipe.yaml, or a shipped recipe ({names})",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}", "name a YAML file of recipe keys") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that is none
        raise UserError(
            f"{path} is not YAML: {' '.join(str(error).split())}", "write one `key: value` a line"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys", "write one `key: value` a line, such as `learning_rate: 0.001`")
    return parse_recipe(values, str(path))


def dump_recipe(recipe: Recipe) -> str:
    """The YAML text of a recipe, in the order of its keys."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` strings to a mapping; values are read as YAML scalars. Raises UserError."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {pair}: not of the form key=value", "write for example --set max_steps=300")
        try:
            settings[key.strip()] = _number(yaml.safe_load(value), value)
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date or a number that is none
            settings[key.strip()] = value
    return settings


def _number(parsed: Any, text: str) -> Any:
    """YAML 1.1 reads `1e-3` as text; people mean a number."""
    if isinstance(parsed, str):
        try:
            return float(text)
        except ValueError:
            return parsed
    return parsed


def unknown_key(key: str, known: Sequence[str], origin: str) -> UserError:
    """The error for a key that nothing reads, with the nearest one that something does."""
    near = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
    return UserError(f"{origin}: unknown key {key!r}", hint)


def _explain(error: ValidationError, known: Sequence[str], origin: str) -> UserError:
    first = error.errors()[0]
    if not first["loc"]:
        return UserError(f"{origin}: {first['msg']}", "keep one of the two")
    key = str(first["loc"][0])  # what follows it names a type of a union
    if first["type"] == "extra_forbidden":
        return unknown_key(key, known, origin)
    field = Recipe.model_fields.get(key)
    message = first["msg"][0].lower() + first["msg"][1:]
    return UserError(f"{origin}: {key}={first['input']!r}: {message}", field.description if field else None)
