"""What the recipe leaves open is chosen here: a function of data, model and seed, never of time.

The figures behind the choices are in docs/lab-notes.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plume.checks.tokens import padding_waste
from plume.errors import UserError
from plume.processors import cores
from plume.recipe import Recipe

_TEXT_CONTEXT = 128
_TEXT_TOKENS = 1024  # in a step
_FRESH_EPOCHS = 4  # text read so few times is not learnt by heart
_LONGEST_CONTEXT = 1024
_WORTH_PACKING = 0.1  # share of padding
_SHORT_RUN = 1_000_000  # tokens, up to which two layers learn more in the same time than four
_GRU_WINDOW = 256  # tokens: whole questions, and no more memory than a Transformer's short context
_GRU_EPOCHS = 5  # over a text by words
_REPLAY_RATIO = 0.1  # of the trained tokens
_MUON_RATE, _MUON_OTHERS_RATE = 0.02, 0.01
_LORA_RATE, _LORA_MOST = 10, 5e-3  # times the rate that trains all weights (Schulman et al. 2025), and its bound


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What is known of the data before there is a tokenizer."""

    is_text: bool
    characters: int


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What is known once it is encoded. Lengths in tokens."""

    is_text: bool
    rows: int
    tokens: int
    longest: int
    longest_reply: int
    context_length: int | None  # of a pretrained model
    parameters: int | None


def choose_text(recipe: Recipe, facts: TextFacts) -> dict[str, Any]:
    """Tokenizer, vocabulary and template for a model from scratch."""
    by_model = {"bigram": "char", "gru": "word"}
    kind = "char" if facts.is_text else by_model.get(recipe.model, "bpe")
    largest = {"char": 4096, "word": 20_000, "bpe": _between(512, facts.characters // 25, 8192)}
    chosen = recipe.tokenizer or kind
    return _unset(
        recipe,
        tokenizer=chosen,
        vocab_size=largest[chosen],
        template="chat" if recipe.model == "gpt" and not facts.is_text else "raw" if facts.is_text else "sep",
    )


def choose_lengths(recipe: Recipe, facts: TokenFacts) -> dict[str, Any]:
    """Context and longest answer: twice what the data needs, so that longer questions still fit."""
    if facts.is_text:
        context, reply = _TEXT_CONTEXT, 200
    else:
        context = _between(64, -(-2 * facts.longest // 32) * 32, _LONGEST_CONTEXT)
        reply = math.ceil(facts.longest_reply * 1.5) + 8
    if facts.context_length:
        context = facts.context_length if not facts.is_text else min(facts.context_length, 256)
    context = recipe.max_length or context
    return _unset(recipe, max_length=context, max_new_tokens=reply if facts.is_text else min(reply, context))


def choose_sizes(recipe: Recipe, facts: TokenFacts, vocab_size: int) -> dict[str, Any]:
    """Width, depth and dropout of a model from scratch; the schedule is chosen by then."""
    if recipe.model == "bigram":
        return _unset(recipe, hidden_size=min(vocab_size, 256), num_hidden_layers=1, num_attention_heads=1, dropout=0.0)
    if recipe.model == "gru":
        window = min(recipe.max_length or _GRU_WINDOW, _GRU_WINDOW)
        sizes = {"hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 1, "attention_window": window}
        return _unset(recipe, **sizes, dropout=0.3 if _word_text(recipe, facts) else 0.1)
    if not facts.is_text:
        return _unset(recipe, hidden_size=192, num_hidden_layers=4, num_attention_heads=4, dropout=0.1)
    tokens = _tokens_in_a_step(recipe) * (recipe.max_steps or 1)
    return _unset(
        recipe,
        hidden_size=128 if facts.tokens < 2_000_000 else 192,
        num_hidden_layers=2 if tokens < _SHORT_RUN else 4,
        num_attention_heads=4,
        dropout=0.0 if (recipe.num_train_epochs or 0) <= _FRESH_EPOCHS else 0.1,
    )


def _tokens_in_a_step(recipe: Recipe) -> int:
    rows = (recipe.per_device_train_batch_size or 1) * recipe.gradient_accumulation_steps
    return rows * (recipe.max_length or _TEXT_CONTEXT)


def choose_replay(recipe: Recipe) -> dict[str, Any]:
    """How much general text is mixed in, where some is named."""
    return _unset(recipe, replay_ratio=_REPLAY_RATIO)


def choose_schedule(recipe: Recipe, facts: TokenFacts) -> dict[str, Any]:
    """Batch, steps, optimiser and intervals. Raises UserError for an optimiser that does not fit."""
    batch = recipe.per_device_train_batch_size or _batch_size(recipe, facts)
    rows = math.ceil(facts.tokens / (recipe.max_length or _TEXT_CONTEXT)) if facts.is_text else facts.rows
    per_epoch = max(1, math.ceil(rows / (batch * recipe.gradient_accumulation_steps)))
    if recipe.max_steps:
        steps = recipe.max_steps
    elif recipe.num_train_epochs:
        steps = max(1, round(per_epoch * recipe.num_train_epochs))
    else:
        steps = _steps(recipe, facts, per_epoch)
    interval = recipe.eval_steps or max(1, math.ceil(steps / (5 if facts.is_text else 8)))
    return _unset(
        recipe,
        per_device_train_batch_size=batch,
        max_steps=steps,
        num_train_epochs=float(f"{steps / per_epoch:.3g}"),
        **_optimiser(recipe, facts),
        warmup_steps=min(steps // 10, 100),
        eval_steps=interval,
        save_steps=interval,
        torch_num_threads=cores(),
    )


def choose_packing(recipe: Recipe, lengths: Sequence[int]) -> dict[str, Any]:
    """Pack where batches of similar length would still be padding for a good part: rows of very different length.

    Only for `gpt`: the others gain nothing (`gru`, `bigram`), or may not be able to (foreign architectures).
    """
    inputs = [length - 1 for length in lengths]
    waste = padding_waste(inputs, recipe.per_device_train_batch_size or 1, recipe.max_length)
    return _unset(recipe, packing=recipe.model == "gpt" and waste > _WORTH_PACKING)


def _batch_size(recipe: Recipe, facts: TokenFacts) -> int:
    if facts.is_text and recipe.model == "gpt":
        return max(1, _TEXT_TOKENS // (recipe.max_length or _TEXT_CONTEXT))
    if facts.is_text:
        return 64 if recipe.model == "bigram" else 16
    return 16 if facts.rows < 400 else 32


def _steps(recipe: Recipe, facts: TokenFacts, per_epoch: int) -> int:
    if _word_text(recipe, facts):
        return _between(300, _GRU_EPOCHS * per_epoch, 1500)
    if facts.is_text:
        return 1000 if recipe.model == "bigram" else 1500
    if facts.parameters:  # fine-tuning starts from something
        return _between(200, 15 * per_epoch, 3 * per_epoch + 1500)
    return _between(600, 30 * per_epoch, 3 * per_epoch + 1500)


def _optimiser(recipe: Recipe, facts: TokenFacts) -> dict[str, Any]:
    """Muon where its products cost less than the steps it spares, and its rates. Raises UserError."""
    faster = (recipe.model == "gpt" and facts.is_text) or _word_text(recipe, facts)
    optim = recipe.optim or ("muon" if faster else "adamw")
    if optim == "muon" and recipe.model == "bigram":
        raise UserError("optim=muon: a bigram has no layers whose matrices it could step", "leave optim out")
    if optim == "adamw" and recipe.muon_learning_rate:
        raise UserError("muon_learning_rate is read with optim=muon alone", "set learning_rate, or optim=muon")
    if optim == "muon":
        return {"optim": optim, "learning_rate": _MUON_OTHERS_RATE, "muon_learning_rate": _MUON_RATE}
    return {"optim": optim, "learning_rate": _learning_rate(recipe, facts)}


def _word_text(recipe: Recipe, facts: TokenFacts) -> bool:
    """A GRU that reads plain text by words."""
    return facts.is_text and recipe.model == "gru" and recipe.tokenizer == "word"


def _learning_rate(recipe: Recipe, facts: TokenFacts) -> float:
    """AdamW's. Smaller models take larger rates; a pretrained one about 1/sqrt(parameters)."""
    scratch = {"bigram": 2e-2, "gru": 3e-3, "gpt": 1.5e-3}
    if recipe.model in scratch:
        return scratch[recipe.model]
    usual = 1 / math.sqrt(facts.parameters or 1)
    return float(f"{min(_LORA_MOST, _LORA_RATE * usual) if recipe.lora_r else min(1e-3, usual):.1e}")


def _unset(recipe: Recipe, **choices: Any) -> dict[str, Any]:
    """Only the choices for keys that the recipe leaves open."""
    return {key: value for key, value in choices.items() if getattr(recipe, key) is None}


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
