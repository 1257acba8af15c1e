"""Everything before the first step: data read and checked, rows split and encoded, the model built, the
recipe completed. Nothing is written, so a mistake costs nothing."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from plume.checks.rules import Batch
from plume.checks.run import Examined
from plume.checks.selection import Selection, kept, selection
from plume.checks.settings import asking_findings
from plume.checks.splits import Taught, overlap
from plume.checks.tokens import endless, forged, seams, too_long, unknown, untrained
from plume.data.keys import Keys, Questions, keys_of
from plume.data.split import Split, split
from plume.data.spool import Joined
from plume.errors import DataError, UserError
from plume.models.bundle import Bundle, bundle, for_training, load
from plume.models.catalog import CATALOG, build_model, find_directory
from plume.recipe import Recipe, parse_recipe
from plume.text.encoded import EncodedRows, Numbers, longest_reply
from plume.text.template import TEMPLATES, ChatTemplate
from plume.text.tokenizer import train_tokenizer
from plume.training import cached, plan
from plume.training.adapt import adapted, adapter_choices, checkpoint_gradients, refuse_adapter
from plume.training.recall import recall_rows
from plume.training.replay import Replay, make_replay, refuse_replay
from plume.training.sources import reading, refuse_password, replay_reading
from plume.types import Example, Finding, LanguageModel

_SEAMS = 200  # rows looked at for D304
_TOKENIZER_SAMPLE = 10_000_000  # characters


@dataclass(frozen=True)
class Prepared:
    """What the loop needs; `choices` are the recipe keys that the data decided, with their values."""

    recipe: Recipe
    findings: tuple[Finding, ...]
    split: Split
    bundle: Bundle
    rows: EncodedRows
    choices: dict[str, str]
    replay: Replay | None = None

    @property
    def from_scratch(self) -> bool:
        return self.recipe.model in CATALOG

    @functools.cached_property
    def is_text(self) -> bool:
        return any(example.is_text for example in self.split.train)

    @functools.cached_property
    def taught(self) -> Container[str]:
        """Questions that held-out rows share with training; empty where they were given in a file of their own."""
        return () if self.recipe.eval_data else Questions(self._keys.question)

    @functools.cached_property
    def recall(self) -> Sequence[Example]:
        """What training rows are asked to see what was learnt by heart."""
        return recall_rows(self.split.train, None if self.is_text else self._keys)

    @functools.cached_property
    def _keys(self) -> Keys:
        return keys_of(self.split.train)

    @property
    def trained_tokens(self) -> int:
        """Tokens in the loss of one epoch."""
        return int(self.rows.taught.sum())


def prepare(recipe: Recipe, *, force: bool = False) -> Prepared:
    """Read, check, split, encode, choose, build.

    Raises DataError with every error found (unless `force`), UserError for a wrong model or value.
    """
    refuse_password(recipe)
    refuse_adapter(recipe)
    refuse_replay(recipe, from_scratch=recipe.model in CATALOG)
    chosen = selection()
    examined = cached.examined(recipe.data, reading(recipe), chosen)
    if not examined.examples:
        raise DataError(f"{recipe.data} holds no example", examined.errors)
    refuse(examined.errors, recipe.data, force=force)
    parts, findings = _parts(recipe, examined, chosen, force=force)
    general, more = _general(recipe, parts, chosen, force=force)
    findings = [*examined.findings, *findings, *more]
    if recipe.torch_num_threads:
        torch.set_num_threads(recipe.torch_num_threads)
    if recipe.model in CATALOG:
        (completed, made, encoded), replay = _from_scratch(recipe, parts), None
    else:
        completed, made, encoded, replay = _from_base(recipe, parts, general)
    completed = parse_recipe(completed.model_dump(), "the choices made from the data")
    checkpoint_gradients(made.model, completed)
    torch.set_num_threads(completed.torch_num_threads or 1)
    context = completed.max_length or made.model.context_length
    both = Joined(parts.train, parts.held_out)
    long = list(too_long(both, encoded, context))
    if long:  # not even by force: a cut answer is never what was meant
        raise DataError(_count(long, "are longer than the context"), long)
    found = kept(_token_findings(parts, made, encoded), chosen)
    refuse(found, recipe.data, force=force)
    findings += found
    names, specials = made.tokenizer.special_token_names, made.tokenizer.special_tokens
    unk_id = specials.get(names.get("unk_token", ""))
    if unk_id not in made.stop_ids:  # GPT-2's tokenizer calls its end token unknown, and knows every byte
        findings += kept(unknown(both, encoded, unk_id), chosen)
    choices = {
        key: _show(value)
        for key, value in completed.model_dump().items()
        if getattr(recipe, key) is None and value is not None
    }
    return Prepared(completed, tuple(findings), parts, made, encoded[: len(parts.train)], choices, replay)


def _parts(recipe: Recipe, examined: Examined, chosen: Selection, *, force: bool) -> tuple[Split, list[Finding]]:
    """Training and evaluation rows: the automatic split, or the file that was given."""
    if not recipe.eval_data:
        return split(examined.examples, test_size=recipe.test_size, split_by=recipe.split_by, seed=recipe.seed), []
    given = cached.examined(recipe.eval_data, reading(recipe), chosen)
    taught = Taught()
    taught.see(Batch(recipe.data, examined.examples))
    shared = list(taught.findings([Batch(recipe.eval_data, given.examples)]))
    if not given.examples:
        raise DataError(f"{recipe.eval_data} holds no example", given.errors)
    found = [finding for finding in given.findings if finding.code != "D215"]  # few questions may be asked
    found += kept([*shared, *asking_findings(examined.examples, given.examples)], chosen)
    refuse(found, recipe.eval_data, force=force)
    reason = f"{len(given.examples)} rows of {recipe.eval_data} are asked in evaluation"
    return Split(examined.examples, given.examples, reason), found


def _general(
    recipe: Recipe, parts: Split, chosen: Selection, *, force: bool
) -> tuple[Examined | None, tuple[Finding, ...]]:
    """The replay file, checked like data, and compared with what is held out."""
    if not recipe.replay:
        return None, ()
    general = cached.examined(recipe.replay, replay_reading(recipe), chosen)
    if not general.examples:
        raise DataError(f"{recipe.replay} holds no example", general.errors)
    found = (*general.findings, *kept(overlap(general.examples, parts.held_out), chosen))
    refuse(found, recipe.replay, force=force)
    return general, found


def refuse(findings: Iterable[Finding], file: str, *, force: bool) -> None:
    """Raise DataError for the errors among some findings, unless `force`."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors and not force:
        hint = f"correct them (`plume check {file}` lists all), or train all the same with --force"
        raise DataError(f"{file}: {_count(errors, 'stop the training')}", errors, hint)


def _token_findings(parts: Split, made: Bundle, encoded: EncodedRows) -> Iterator[Finding]:
    """D302, D303 and D306 for every training row, D304 for a sample: it renders each row once more."""
    rows = encoded[: len(parts.train)]
    yield from untrained(parts.train, rows)
    yield from endless(parts.train, rows, made.stop_ids)
    yield from forged(parts.train, made.tokenizer)
    step = max(1, len(parts.train) // _SEAMS)
    yield from seams(parts.train[::step], made.tokenizer, made.template)


def _from_scratch(recipe: Recipe, parts: Split) -> tuple[Recipe, Bundle, EncodedRows]:
    facts = _text_facts(parts.train)
    recipe = recipe.model_copy(update=plan.choose_text(recipe, facts))
    tokenizer = train_tokenizer(recipe.tokenizer or "bpe", _sample(parts.train), recipe.vocab_size or 0)
    template = ChatTemplate(TEMPLATES[recipe.template or "chat"], tokenizer)
    encoded = cached.encoded_rows(recipe, parts, template, tokenizer)
    token_facts = _facts(parts, facts.is_text, encoded, None, None)
    for choose in (plan.choose_lengths, plan.choose_schedule):
        recipe = recipe.model_copy(update=choose(recipe, token_facts))
    recipe = _with_packing(recipe, encoded.lengths[: len(parts.train)])
    recipe = recipe.model_copy(update=plan.choose_sizes(recipe, token_facts, tokenizer.vocab_size))
    model = _build(recipe, tokenizer.vocab_size)
    made = bundle(model, tokenizer, template.source, recipe.max_new_tokens or 1, own_template=not facts.is_text)
    return recipe, made, encoded


def _from_base(
    recipe: Recipe, parts: Split, general: Examined | None
) -> tuple[Recipe, Bundle, EncodedRows, Replay | None]:
    made_anew = [
        key
        for key in ("tokenizer", "vocab_size", "template", "hidden_size", "num_hidden_layers")
        if getattr(recipe, key)
    ]
    fixed = ("num_attention_heads", "attention_window", "dropout")
    made_anew += [key for key in fixed if getattr(recipe, key) is not None]
    if made_anew:
        raise UserError(
            f"{made_anew[0]} cannot be set when fine-tuning: {recipe.model} brings its own",
            f"leave {made_anew[0]} out, or train from scratch with --model gpt",
        )
    is_text = any(example.is_text for example in parts.train)
    base = _base(recipe, parts.train)
    recipe = recipe.model_copy(update=adapter_choices(base, recipe))
    parameters = sum(parameter.numel() for parameter in base.model.parameters())
    context = base.model.context_length
    if recipe.max_length and recipe.max_length > context:
        raise UserError(
            f"max_length={recipe.max_length} is beyond the model's context of {context}", f"use {context} or less"
        )
    encoded = cached.encoded_rows(recipe, parts, base.template, base.tokenizer)
    train = encoded[: len(parts.train)]
    facts = _facts(parts, is_text, encoded, context, parameters)
    recipe = recipe.model_copy(update=plan.choose_lengths(recipe, facts))
    replay = None
    if general:
        recipe = recipe.model_copy(update=plan.choose_replay(recipe))
        replay = make_replay(recipe, general, train, base.template, base.tokenizer)
        facts = with_replay(facts, replay)
    recipe = recipe.model_copy(update=plan.choose_schedule(recipe, facts))
    recipe = _with_packing(recipe, train.lengths)
    return recipe, replace(base, max_new_tokens=recipe.max_new_tokens or 1), encoded, replay


def _with_packing(recipe: Recipe, lengths: Numbers) -> Recipe:
    return recipe.model_copy(update=plan.choose_packing(recipe, lengths.tolist()))


def with_replay(facts: plan.TokenFacts, replay: Replay | None) -> plan.TokenFacts:
    """What an epoch shows, the draws of the replay file included."""
    if replay is None:
        return facts
    return replace(facts, rows=facts.rows + round(replay.draws), tokens=facts.tokens + round(replay.tokens))


def _text_facts(train: Iterable[Example]) -> plan.TextFacts:
    is_text, characters = False, 0
    for example in train:
        is_text = is_text or example.is_text
        characters += sum(len(message.content) for message in example.messages)
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
    for text in (message.content for example in train for message in example.messages):
        if left <= 0:
            return
        yield text[:left]
        left -= len(text)


def _count(findings: Sequence[Finding], what: str) -> str:
    return f"1 row: {findings[0].message}" if len(findings) == 1 else f"{len(findings)} findings {what}"


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def initial_model(prepared: Prepared) -> LanguageModel:
    """The model as it was before the first step, made again."""
    if prepared.from_scratch:
        return _build(prepared.recipe, prepared.bundle.tokenizer.vocab_size)
    return _base(prepared.recipe, prepared.split.train).model


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
