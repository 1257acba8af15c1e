"""A model to train with its rows, from scratch or from a base, and the recipe completed on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from plume.checks.run import Examined
from plume.data.split import Split
from plume.errors import UserError
from plume.models.bundle import Bundle, bundle, for_training, load
from plume.models.catalog import CATALOG, build_model, find_directory
from plume.recipe import Recipe
from plume.text.encoded import EncodedRows, longest_reply
from plume.text.template import TEMPLATES, ChatTemplate
from plume.text.tokenizer import train_tokenizer
from plume.training import cached, plan
from plume.training.adapt import adapted, adapter_choices
from plume.training.replay import Replay, make_replay
from plume.training.sizes import choose_sizes
from plume.types import Example, LanguageModel

_TOKENIZER_SAMPLE = 10_000_000  # characters
_MADE_ANEW = ("tokenizer", "vocab_size", "template", "model_size", "hidden_size", "num_hidden_layers")
_FIXED = ("num_attention_heads", "attention_window", "dropout")


@dataclass(frozen=True)
class Made:
    """What is to be trained on which rows (those held out last), and how every open key was chosen."""

    recipe: Recipe
    choices: plan.Choices
    bundle: Bundle
    encoded: EncodedRows
    replay: Replay | None = None


@dataclass
class _Open:
    """A recipe on its way to completion."""

    recipe: Recipe
    choices: plan.Choices = field(default_factory=dict)

    def take(self, found: plan.Choices) -> Recipe:
        self.choices |= found
        self.recipe = plan.taken(self.recipe, found)
        return self.recipe


def make(recipe: Recipe, parts: Split, general: Examined | None) -> Made:
    """Build or open, encode, choose. `general` is what was read of a replay file. Raises UserError, DataError."""
    return _from_scratch(recipe, parts) if recipe.model in CATALOG else _from_base(recipe, parts, general)


def _from_scratch(recipe: Recipe, parts: Split) -> Made:
    facts = _text_facts(parts.train)
    still = _Open(recipe)
    recipe = still.take(plan.choose_text(recipe, facts))
    tokenizer = train_tokenizer(recipe.tokenizer or "bpe", _sample(parts.train), recipe.vocab_size or 0)
    template = ChatTemplate(TEMPLATES[recipe.template or "chat"], tokenizer)
    encoded = cached.encoded_rows(recipe, parts, template, tokenizer)
    token_facts = _facts(parts, facts.is_text, encoded, None, None)
    for choose in (plan.choose_lengths, plan.choose_schedule):
        recipe = still.take(choose(recipe, token_facts))
    recipe = still.take(plan.choose_packing(recipe, encoded.lengths[: len(parts.train)].tolist()))
    recipe = still.take(choose_sizes(recipe, token_facts, tokenizer.vocab_size))
    model = _build(recipe, tokenizer.vocab_size)
    made = bundle(model, tokenizer, template.source, recipe.max_new_tokens or 1, own_template=not facts.is_text)
    return Made(recipe, still.choices, made, encoded)


def _from_base(recipe: Recipe, parts: Split, general: Examined | None) -> Made:
    _refuse_own(recipe)
    is_text = any(example.is_text for example in parts.train)
    base = _base(recipe, parts.train)
    still = _Open(recipe)
    recipe = still.take(adapter_choices(base, recipe))
    parameters = sum(parameter.numel() for parameter in base.model.parameters())
    context = base.model.context_length
    if recipe.max_length and recipe.max_length > context:
        raise UserError(
            f"max_length={recipe.max_length} is beyond the model's context of {context}", f"use {context} or less"
        )
    encoded = cached.encoded_rows(recipe, parts, base.template, base.tokenizer)
    train = encoded[: len(parts.train)]
    facts = _facts(parts, is_text, encoded, context, parameters)
    recipe = still.take(plan.choose_lengths(recipe, facts))
    replay = None
    if general:
        recipe = still.take(plan.choose_replay(recipe))
        replay = make_replay(recipe, general, train, base.template, base.tokenizer)
        facts = with_replay(facts, replay)
    recipe = still.take(plan.choose_schedule(recipe, facts))
    recipe = still.take(plan.choose_packing(recipe, train.lengths.tolist()))
    made = replace(base, max_new_tokens=recipe.max_new_tokens or 1)
    return Made(recipe, still.choices, made, encoded, replay)


def _refuse_own(recipe: Recipe) -> None:
    """Raise UserError for keys that a base has decided already."""
    set_anew = [key for key in _MADE_ANEW if getattr(recipe, key)]
    set_anew += [key for key in _FIXED if getattr(recipe, key) is not None]
    if set_anew:
        raise UserError(
            f"{set_anew[0]} cannot be set when fine-tuning: {recipe.model} brings its own",
            f"leave {set_anew[0]} out, or train from scratch with --model gpt",
        )


def with_replay(facts: plan.TokenFacts, replay: Replay | None) -> plan.TokenFacts:
    """What an epoch shows, the draws of the replay file included."""
    if replay is None:
        return facts
    return replace(facts, rows=facts.rows + round(replay.draws), tokens=facts.tokens + round(replay.tokens))


def _text_facts(train: Iterable[Example]) -> plan.TextFacts:
    is_text, characters = False, 0
    for example in train:
        is_text = is_text or example.is_text
        characters += len(example.tools) + sum(len(message.said) for message in example.messages)
    return plan.TextFacts(is_text, characters)


def _facts(
    parts: Split, is_text: bool, encoded: EncodedRows, context: int | None, parameters: int | None
) -> plan.TokenFacts:
    train = len(parts.train)
    return plan.TokenFacts(
        is_text=is_text,
        rows=train,
        tokens=int(encoded.lengths[:train].sum()),
        longest=int(encoded.lengths.max()),
        longest_reply=0 if is_text else longest_reply(encoded),
        context_length=context,
        parameters=parameters,
    )


def _sample(train: Iterable[Example]) -> Iterator[str]:
    """Enough text to learn a vocabulary from, in pieces that keep line ends."""
    left = _TOKENIZER_SAMPLE
    for text in (
        text for example in train for text in (example.tools, *(one.said for one in example.messages)) if text
    ):
        if left <= 0:
            return
        yield text[:left]
        left -= len(text)


def initial_model(recipe: Recipe, vocab_size: int, train: Sequence[Example]) -> LanguageModel:
    """The model of a completed recipe as it was before the first step, made again."""
    return _build(recipe, vocab_size) if recipe.model in CATALOG else _base(recipe, train).model


def baseline(recipe: Recipe, trained: Bundle) -> tuple[Bundle, str]:
    """The model to beat and its name: untrained, or the base asked as it came."""
    if recipe.model in CATALOG:
        return replace(trained, model=_build(recipe, trained.tokenizer.vocab_size)), "untrained"
    return load(find_directory(recipe.model)), f"base {recipe.model}"


def _build(recipe: Recipe, vocab_size: int) -> LanguageModel:
    torch.manual_seed(recipe.seed)
    return build_model(recipe.model, {**recipe.model_dump(), "vocab_size": vocab_size})


def _base(recipe: Recipe, rows: Sequence[Example]) -> Bundle:
    """The base with the tokens that fine-tuning adds; new rows of its embeddings depend on the seed."""
    torch.manual_seed(recipe.seed)
    chat = not any(example.is_text for example in rows)
    base = load(find_directory(recipe.model))
    return adapted(base, for_training(base, chat=chat, texts=_sample(rows)), recipe)
