"""Everything before the first step: data read and checked, rows split and encoded, the model built, the
recipe completed. Nothing is written, so a mistake costs nothing."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
from plume.errors import DataError
from plume.events import Choice
from plume.models.bundle import Bundle
from plume.models.catalog import CATALOG
from plume.recipe import Recipe, parse_recipe
from plume.text.encoded import EncodedRows
from plume.training import cached
from plume.training.adapt import checkpoint_gradients, refuse_adapter
from plume.training.making import initial_model, make
from plume.training.recall import recall_rows
from plume.training.replay import Replay, refuse_replay
from plume.training.sources import reading, refuse_password, replay_reading
from plume.types import Example, Finding, LanguageModel

_SEAMS = 200  # rows looked at for D304


@dataclass(frozen=True)
class Prepared:
    """What the loop needs; `choices` are the recipe keys that the data decided, `range_test` the rates tried."""

    recipe: Recipe
    findings: tuple[Finding, ...]
    split: Split
    bundle: Bundle
    rows: EncodedRows
    choices: Mapping[str, Choice]
    replay: Replay | None = None
    range_test: tuple[tuple[float, float], ...] = ()

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

    def initial_model(self) -> LanguageModel:
        """The model as it was before the first step, made again."""
        return initial_model(self.recipe, self.bundle.tokenizer.vocab_size, self.split.train)

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
    made = make(recipe, parts, general)
    bundle, encoded = made.bundle, made.encoded
    completed = parse_recipe(made.recipe.model_dump(), "the choices made from the data")
    checkpoint_gradients(bundle.model, completed)
    torch.set_num_threads(completed.torch_num_threads or 1)
    context = completed.max_length or bundle.model.context_length
    both = Joined(parts.train, parts.held_out)
    long = list(too_long(both, encoded, context))
    if long:  # not even by force: a cut answer is never what was meant
        raise DataError(_count(long, "are longer than the context"), long)
    found = kept(_token_findings(parts, bundle, encoded), chosen)
    refuse(found, recipe.data, force=force)
    findings += found
    names, specials = bundle.tokenizer.special_token_names, bundle.tokenizer.special_tokens
    unk_id = specials.get(names.get("unk_token", ""))
    if unk_id not in bundle.stop_ids:  # GPT-2's tokenizer calls its end token unknown, and knows every byte
        findings += kept(unknown(both, encoded, unk_id, from_scratch=recipe.model in CATALOG), chosen)
    rows = encoded[: len(parts.train)]
    return Prepared(completed, tuple(findings), parts, bundle, rows, made.choices, made.replay)


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


def _count(findings: Sequence[Finding], what: str) -> str:
    return f"1 row: {findings[0].message}" if len(findings) == 1 else f"{len(findings)} findings {what}"
