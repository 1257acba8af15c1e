"""What the recipe says about adapters and memory, and what it does to the model that is trained."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Protocol, runtime_checkable

from plume.errors import UserError
from plume.events import Choice
from plume.models.adapter import Lora, attach
from plume.models.bundle import Bundle
from plume.models.catalog import CATALOG
from plume.recipe import Recipe
from plume.types import LanguageModel

_ALPHA = 2  # times the rank: what is learnt is added at twice its size, whatever the rank
_KEYS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_dora": "use_dora",
    "lora_target_modules": "target_modules",
}


@runtime_checkable
class _Checkpointing(Protocol):
    """A model that can forget what its layers compute, and compute it again in the backward pass."""

    def checkpoint_layers(self, on: bool = True) -> None: ...


def refuse_adapter(recipe: Recipe) -> None:
    """Raise UserError for keys of an adapter where there is none to be."""
    if recipe.model in CATALOG and recipe.lora_r:
        raise UserError(
            f"lora_r={recipe.lora_r}: an adapter changes a model that can do something already, and {recipe.model} is "
            "trained from scratch",
            "name a model to fine-tune: --model DIR; or leave lora_r out",
        )


def adapted(base: Bundle, grown: Bundle, recipe: Recipe) -> Bundle:
    """The bundle to train: as it is, with a new adapter, or with the one that it brought.

    `grown` is `base` with the tokens that fine-tuning adds; an adapter trains the embeddings of those as well.
    Raises UserError for a wish that contradicts the adapter, DataError with D509 for targets that match nothing.
    """
    if base.adapter:
        _refuse_another(base.adapter.settings, recipe)
        return grown
    if not recipe.lora_r:
        given = [key for key in _KEYS if getattr(recipe, key) is not None]
        if given:
            raise UserError(f"{given[0]} is read with lora_r alone", "set lora_r too: --set lora_r=16")
        return grown
    if recipe.optim == "muon":
        raise UserError("optim=muon steps whole matrices, and an adapter has thin ones", "leave optim out")
    settings = Lora(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha or _ALPHA * recipe.lora_r,
        lora_dropout=recipe.lora_dropout or 0.0,
        use_dora=bool(recipe.use_dora),
        target_modules=tuple(recipe.lora_target_modules or ()),
    )
    new_ids = range(base.tokenizer.vocab_size, grown.tokenizer.vocab_size)
    return replace(grown, adapter=attach(grown.model, settings, recipe.model, new_ids))


def adapter_choices(trained: Bundle, recipe: Recipe) -> dict[str, Choice]:
    """The keys that the recipe leaves open, as the adapter has them."""
    if not trained.adapter:
        return {}
    settings = _recipe_keys(trained.adapter.settings)
    why = f"with lora_r={trained.adapter.settings.r}" if recipe.lora_r else "the adapter has it so"
    choices = {key: Choice(value, why) for key, value in settings.items()}
    if isinstance(trained.model, _Checkpointing):  # activations are most of what an adapter leaves to be saved
        choices["gradient_checkpointing"] = Choice(True, "to save memory; a step takes about a third longer")
    return {key: choice for key, choice in choices.items() if getattr(recipe, key) is None}


def checkpoint_gradients(model: LanguageModel, recipe: Recipe) -> None:
    """Switch on what `gradient_checkpointing` asks for. Raises UserError for a model that cannot."""
    if not recipe.gradient_checkpointing:
        return
    if not isinstance(model, _Checkpointing):
        raise UserError("gradient_checkpointing: this model has no layers that could be computed twice", "leave it out")
    model.checkpoint_layers()


def _refuse_another(settings: Lora, recipe: Recipe) -> None:
    for key, value in _recipe_keys(settings).items():
        wished = getattr(recipe, key)
        if wished is not None and wished != value:
            raise UserError(
                f"{key}={wished} contradicts the adapter {recipe.model}, which has {key}={value}",
                "leave it out to train that adapter on, or merge it first: plume merge ADAPTER --output-dir DIR",
            )


def _recipe_keys(settings: Lora) -> dict[str, Any]:
    values = asdict(settings)
    return {key: list(values[name]) if name == "target_modules" else values[name] for key, name in _KEYS.items()}
