"""How large a model from scratch is: by the data, by name, or by a number of parameters.

Depth grows with width, one layer for each 64, as in the GPT-2 family (Radford et al. 2019: 768 wide, 12 deep). Sizes
are counted on models without storage, so that no formula can disagree with what is built.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from typing import NamedTuple

from plume.errors import UserError
from plume.events import Choice
from plume.models.catalog import parameter_count
from plume.recipe import MODEL_SIZES, SIZED, Recipe, budget
from plume.training.plan import TEXT_CONTEXT, Choices, TokenFacts, taken, unset, word_text

_SHORT_RUN = 1_000_000  # tokens, up to which two layers learn more in the same time than four
_LARGE_TEXT = 2_000_000  # tokens of text that a width of 128 is too narrow for
_FRESH_EPOCHS = 4  # text read so few times is not learnt by heart
_NEAR, _VERY_NEAR = 0.10, 0.03  # of a budget
_GRU_WINDOW = 256  # tokens: no more memory than a Transformer's short context
_ASPECT = 64  # width for each layer
_WIDEST = 4096


class Shape(NamedTuple):
    """What decides a model's size, beside its vocabulary. The width inside the layers follows from these."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int


_NAMED = {
    "gpt": {"tiny": Shape(128, 2, 4), "small": Shape(192, 4, 4), "base": Shape(384, 6, 6)},
    "gru": {"tiny": Shape(128, 1, 1), "small": Shape(256, 1, 1), "base": Shape(512, 2, 1)},
}


def choose_sizes(recipe: Recipe, facts: TokenFacts, vocab_size: int) -> Choices:
    """Width, depth, heads and dropout; the schedule is chosen by then.

    Raises UserError for a size that the architecture does not have, or that no shape comes near.
    """
    shape, why = _shape(recipe, facts, vocab_size)
    dropout, reason = _dropout(recipe, facts)
    chosen = unset(
        recipe,
        hidden_size=Choice(shape.hidden_size, why),
        num_hidden_layers=Choice(shape.num_hidden_layers, why),
        num_attention_heads=Choice(shape.num_attention_heads, "heads of 32 to 64 numbers"),
        dropout=Choice(dropout, reason),
    )
    if recipe.model == "gru":
        window = min(recipe.max_length or _GRU_WINDOW, _GRU_WINDOW)
        chosen |= unset(recipe, attention_window=Choice(window, "whole questions, in bounded memory"))
    _refuse_far(taken(recipe, chosen), vocab_size)
    return chosen


def _shape(recipe: Recipe, facts: TokenFacts, vocab_size: int) -> tuple[Shape, str]:
    size = recipe.model_size
    if size and recipe.model not in SIZED:
        raise UserError(f"model_size={size}: {recipe.model} has no sizes", f"these have: {', '.join(SIZED)}")
    if size in MODEL_SIZES:
        return _NAMED[recipe.model][size], f"{recipe.model}:{size}"
    if size:
        return _nearest(recipe, budget(size) or 0, vocab_size), f"nearest to {size} parameters, a layer for each 64"
    if recipe.model == "bigram":
        return Shape(min(vocab_size, 256), 1, 1), "a table of token pairs needs no more than the vocabulary"
    if recipe.model == "gru":
        return _NAMED["gru"]["small"], "usual for this architecture"
    if not facts.is_text:
        return _NAMED["gpt"]["small"], "questions and answers"
    width = 128 if facts.tokens < _LARGE_TEXT else 192
    tokens = _tokens_in_a_step(recipe) * (recipe.max_steps or 1)
    depth, run = (2, "short") if tokens < _SHORT_RUN else (4, "long")
    return Shape(width, depth, 4), f"{facts.tokens:,} tokens of text, a {run} run of {tokens:,}"


def _dropout(recipe: Recipe, facts: TokenFacts) -> tuple[float, str]:
    epochs = recipe.num_train_epochs or 0
    if recipe.model == "bigram":
        return 0.0, "a bigram cannot learn by heart"
    if word_text(recipe, facts):
        return 0.3, f"a text by words, read {epochs:g} times"
    if recipe.model == "gpt" and facts.is_text and epochs <= _FRESH_EPOCHS:
        return 0.0, f"text read {epochs:g} times is not learnt by heart"
    return 0.1, f"every row is read {epochs:g} times"


def _tokens_in_a_step(recipe: Recipe) -> int:
    rows = (recipe.per_device_train_batch_size or 1) * recipe.gradient_accumulation_steps
    return rows * (recipe.max_length or TEXT_CONTEXT)


def _nearest(recipe: Recipe, wanted: int, vocab_size: int) -> Shape:
    """Of the shapes within 3 % of a budget the one nearest to the usual proportions, else the one nearest to it."""
    widths = (*range(32, 256, 8), *range(256, _WIDEST + 1, 32))
    at = bisect(widths, wanted, key=lambda width: next(_shapes(recipe, width, vocab_size))[0])
    around = widths[max(0, at - 3) : at + 3]
    found = [
        (abs(count / wanted - 1), shape) for width in around for count, shape in _shapes(recipe, width, vocab_size)
    ]
    near = [shape for off, shape in found if off <= _VERY_NEAR]
    return min(near, key=lambda shape: _odd(recipe.model, shape)) if near else min(found)[1]


def _shapes(recipe: Recipe, width: int, vocab_size: int) -> Iterator[tuple[int, Shape]]:
    """Shapes of one width with their parameters, the usual depth first. Every layer adds as many."""
    one, two = (_count(recipe, _of(recipe.model, width, depth), vocab_size) for depth in (1, 2))
    usual = _usual_depth(recipe.model, width)
    for depth in (usual, usual + 1, *([usual - 1] if usual > 1 else [])):
        yield one + (depth - 1) * (two - one), _of(recipe.model, width, depth)


def _usual_depth(model: str, width: int) -> int:
    return max(2, round(width / _ASPECT)) if model == "gpt" else 1 + (width > 256)


def _odd(model: str, shape: Shape) -> float:
    """How far a shape's depth is from the usual one."""
    usual = _usual_depth(model, shape.hidden_size)
    return abs(shape.num_hidden_layers - usual) / usual


def _of(model: str, width: int, depth: int) -> Shape:
    """Heads of about 64 numbers, at least four of them."""
    if model != "gpt":
        return Shape(width, depth, 1)
    fitting = [heads for heads in range(4, max(4, width // 32) + 1) if width % (2 * heads) == 0]
    return Shape(width, depth, min(fitting, key=lambda heads: abs(width / heads - _ASPECT)))


def _count(recipe: Recipe, shape: Shape, vocab_size: int) -> int:
    return parameter_count(
        recipe.model, {**recipe.model_dump(), **shape._asdict(), "dropout": 0.0, "vocab_size": vocab_size}
    )


def _refuse_far(recipe: Recipe, vocab_size: int) -> None:
    """Raise UserError when a model is not of the size that was asked for: its vocabulary or a key stands against it."""
    wanted = budget(recipe.model_size or "")
    if not wanted:
        return
    count = parameter_count(recipe.model, {**recipe.model_dump(), "vocab_size": vocab_size})
    if abs(count / wanted - 1) > _NEAR:
        raise UserError(
            f"model_size={recipe.model_size}: with {vocab_size:,} token ids, width {recipe.hidden_size} and "
            f"{recipe.num_hidden_layers} layers there are {count:,} parameters",
            "ask for another number, leave hidden_size and num_hidden_layers out, or set a smaller vocab_size",
        )
