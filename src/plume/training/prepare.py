"""Everything before the first step: data read and checked, rows split and encoded, the model built, the
recipe completed. Nothing is written, so a mistake costs nothing."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from plume.checks.rules import Batch
from plume.checks.run import Examined, examine
from plume.checks.selection import Selection, kept, selection
from plume.checks.settings import asking_findings
from plume.checks.splits import Taught
from plume.checks.tokens import endless, forged, seams, too_long, unknown, untrained
from plume.data.split import Split, split, taught_questions
from plume.errors import DataError, UserError
from plume.models.bundle import Bundle, bundle, for_training, load
from plume.models.catalog import CATALOG, build_model, find_directory
from plume.recipe import Recipe, parse_recipe
from plume.text.template import TEMPLATES, ChatTemplate, encode_example
from plume.text.tokenizer import TextTokenizer, train_tokenizer
from plume.training import plan, sizes
from plume.training.sources import reading, refuse_password
from plume.types import Choice, Encoded, Finding, LanguageModel

_SEAMS = 200  # rows looked at for D304
_TOKENIZER_SAMPLE = 10_000_000  # characters


@dataclass(frozen=True)
class Prepared:
    """What the loop needs; `choices` are the recipe keys that the data decided. `range_test` holds the rates that
    were tried for `learning_rate=auto`, each with its loss."""

    recipe: Recipe
    findings: tuple[Finding, ...]
    split: Split
    bundle: Bundle
    rows: tuple[Encoded, ...]
    choices: Mapping[str, Choice]
    range_test: tuple[tuple[float, float], ...] = ()

    @property
    def from_scratch(self) -> bool:
        return self.recipe.model in CATALOG

    @property
    def is_text(self) -> bool:
        return any(example.is_text for example in self.split.train)

    @functools.cached_property
    def taught(self) -> frozenset[str]:
        """Questions that held-out rows share with training; empty where they were given in a file of their own."""
        return frozenset() if self.recipe.eval_data else taught_questions(self.split.train)

    @property
    def trained_tokens(self) -> int:
        """Tokens in the loss of one epoch."""
        return sum(sum(row.trained[1:]) for row in self.rows)


def prepare(recipe: Recipe, *, force: bool = False) -> Prepared:
    """Read, check, split, encode, choose, build.

    Raises DataError with every error found (unless `force`), UserError for a wrong model or value.
    """
    refuse_password(recipe)
    chosen = selection()
    examined = examine(recipe.data, reading(recipe), chosen)
    if not examined.examples:
        raise DataError(f"{recipe.data} holds no example", examined.errors)
    refuse(examined.errors, recipe.data, force=force)
    parts, findings = _parts(recipe, examined, chosen, force=force)
    findings = [*examined.findings, *findings]
    if recipe.torch_num_threads:
        torch.set_num_threads(recipe.torch_num_threads)
    if recipe.model in CATALOG:
        completed, choices, made, encoded = _from_scratch(recipe, parts)
    else:
        completed, choices, made, encoded = _from_base(recipe, parts)
    completed = parse_recipe(completed.model_dump(), "the choices made from the data")
    torch.set_num_threads(completed.torch_num_threads or 1)
    context = completed.max_length or made.model.context_length
    long = list(too_long((*parts.train, *parts.held_out), encoded, context))
    if long:  # not even by force: a cut answer is never what was meant
        raise DataError(_count(long, "are longer than the context"), long)
    found = kept(_token_findings(parts, made, encoded), chosen)
    refuse(found, recipe.data, force=force)
    findings += found
    names, specials = made.tokenizer.special_token_names, made.tokenizer.special_tokens
    unk_id = specials.get(names.get("unk_token", ""))
    if unk_id not in made.stop_ids:  # GPT-2's tokenizer calls its end token unknown, and knows every byte
        findings += kept(unknown((*parts.train, *parts.held_out), encoded, unk_id), chosen)
    return Prepared(completed, tuple(findings), parts, made, tuple(encoded[: len(parts.train)]), choices)


def _parts(recipe: Recipe, examined: Examined, chosen: Selection, *, force: bool) -> tuple[Split, list[Finding]]:
    """Training and evaluation rows: the automatic split, or the file that was given."""
    if not recipe.eval_data:
        return split(examined.examples, test_size=recipe.test_size, split_by=recipe.split_by, seed=recipe.seed), []
    given = examine(recipe.eval_data, reading(recipe), chosen)
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


def refuse(findings: Iterable[Finding], file: str, *, force: bool) -> None:
    """Raise DataError for the errors among some findings, unless `force`."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors and not force:
        hint = f"correct them (`plume check {file}` lists all), or train all the same with --force"
        raise DataError(f"{file}: {_count(errors, 'stop the training')}", errors, hint)


def _token_findings(parts: Split, made: Bundle, encoded: list[Encoded]) -> Iterator[Finding]:
    """D302, D303 and D306 for every training row, D304 for a sample: it renders each row once more."""
    rows = encoded[: len(parts.train)]
    yield from untrained(parts.train, rows)
    yield from endless(parts.train, rows, made.stop_ids)
    yield from forged(parts.train, made.tokenizer)
    step = max(1, len(parts.train) // _SEAMS)
    yield from seams(parts.train[::step], made.tokenizer, made.template)


def _from_scratch(recipe: Recipe, parts: Split) -> tuple[Recipe, plan.Choices, Bundle, list[Encoded]]:
    texts = [message.content for example in parts.train for message in example.messages]
    is_text = any(example.is_text for example in parts.train)
    facts = plan.TextFacts(is_text, sum(len(text) for text in texts))
    choices = plan.choose_text(recipe, facts)
    recipe = plan.taken(recipe, choices)
    tokenizer = train_tokenizer(recipe.tokenizer or "bpe", _sample(texts), recipe.vocab_size or 0)
    template = ChatTemplate(TEMPLATES[recipe.template or "chat"], tokenizer)
    encoded = _encode(parts, template, tokenizer)
    token_facts = _facts(parts, tokenizer, encoded, None, None)
    for choose in (plan.choose_lengths, plan.choose_schedule):
        choices |= choose(recipe, token_facts)
        recipe = plan.taken(recipe, choices)
    choices |= sizes.choose_sizes(recipe, token_facts, tokenizer.vocab_size)
    recipe = plan.taken(recipe, choices)
    model = _build(recipe, tokenizer.vocab_size)
    return recipe, choices, bundle(model, tokenizer, template.source, recipe.max_new_tokens or 1), encoded


def _from_base(recipe: Recipe, parts: Split) -> tuple[Recipe, plan.Choices, Bundle, list[Encoded]]:
    made_anew = [
        key
        for key in ("tokenizer", "vocab_size", "template", "model_size", "hidden_size", "num_hidden_layers")
        if getattr(recipe, key)
    ]
    made_anew += [key for key in ("num_attention_heads", "dropout") if getattr(recipe, key) is not None]
    if made_anew:
        raise UserError(
            f"{made_anew[0]} cannot be set when fine-tuning: {recipe.model} brings its own",
            f"leave {made_anew[0]} out, or train from scratch with --model gpt",
        )
    base = _base(recipe, chat=not any(example.is_text for example in parts.train))
    parameters = sum(parameter.numel() for parameter in base.model.parameters())
    context = base.model.context_length
    if recipe.max_length and recipe.max_length > context:
        raise UserError(
            f"max_length={recipe.max_length} is beyond the model's context of {context}", f"use {context} or less"
        )
    encoded = _encode(parts, base.template, base.tokenizer)
    facts = _facts(parts, base.tokenizer, encoded, context, parameters)
    choices: plan.Choices = {}
    for choose in (plan.choose_lengths, plan.choose_schedule):
        choices |= choose(recipe, facts)
        recipe = plan.taken(recipe, choices)
    made = Bundle(base.model, base.tokenizer, base.template, base.stop_ids, recipe.max_new_tokens or 1)
    return recipe, choices, made, encoded


def _facts(
    parts: Split, tokenizer: TextTokenizer, encoded: list[Encoded], context: int | None, parameters: int | None
) -> plan.TokenFacts:
    replies = [
        len(tokenizer.encode(turn.reply.content)) + 1
        for example in (*parts.train, *parts.held_out)
        if not example.is_text
        for turn in example.turns()
    ]
    is_text = any(example.is_text for example in parts.train)
    return plan.TokenFacts(
        is_text=is_text,
        rows=len(parts.train),
        tokens=sum(len(row.ids) for row in encoded[: len(parts.train)]),
        longest=max(len(row.ids) for row in encoded),
        longest_reply=max(replies, default=0),
        context_length=context,
        parameters=parameters,
    )


def _encode(parts: Split, template: ChatTemplate, tokenizer: TextTokenizer) -> list[Encoded]:
    """All rows, the training ones first."""
    return [encode_example(example, template, tokenizer) for example in (*parts.train, *parts.held_out)]


def _sample(texts: Sequence[str]) -> Iterator[str]:
    """Enough text to learn a vocabulary from, in pieces that keep line ends."""
    left = _TOKENIZER_SAMPLE
    for text in texts:
        if left <= 0:
            return
        yield text[:left]
        left -= len(text)


def _count(findings: Sequence[Finding], what: str) -> str:
    return f"1 row: {findings[0].message}" if len(findings) == 1 else f"{len(findings)} findings {what}"


def initial_model(prepared: Prepared) -> LanguageModel:
    """The model as it was before the first step, made again."""
    if prepared.from_scratch:
        return _build(prepared.recipe, prepared.bundle.tokenizer.vocab_size)
    return _base(prepared.recipe, chat=not prepared.is_text).model


def baseline(recipe: Recipe, trained: Bundle) -> tuple[Bundle, str]:
    """The model to beat and its name: untrained, or the base asked as it came."""
    if recipe.model in CATALOG:
        return replace(trained, model=_build(recipe, trained.tokenizer.vocab_size)), "untrained"
    return load(find_directory(recipe.model)), f"base {recipe.model}"


def _build(recipe: Recipe, vocab_size: int) -> LanguageModel:
    torch.manual_seed(recipe.seed)
    return build_model(recipe.model, {**recipe.model_dump(), "vocab_size": vocab_size})


def _base(recipe: Recipe, *, chat: bool) -> Bundle:
    """The base with the tokens that fine-tuning adds; new rows of its embeddings depend on the seed."""
    torch.manual_seed(recipe.seed)
    return for_training(load(find_directory(recipe.model)), chat=chat)
