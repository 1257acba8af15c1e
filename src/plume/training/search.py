"""What a search for better settings may propose: ranges and choices of recipe keys, and where they come from."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from plume.errors import UserError
from plume.events import TrainEvent
from plume.recipe import Recipe, parse_recipe, parse_settings, unknown_key
from plume.types import EvaluationKind, Finding

# Under another value of these, trials would be asked something else, or stopped by another rule.
_ASKING = (
    *("data", "eval_data", "split_documents", "prompt_column", "completion_column", "query"),
    *("test_size", "split_by", "eval_samples", "eval_steps", "max_new_tokens"),
)
_IDLE = ("save_steps", "save_total_limit", "logging_steps", "torch_num_threads", "report_to")


@dataclass(frozen=True, slots=True)
class Range:
    """Every number from `low` to `high`, both included; whole ones if both are whole."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float:
        """The number that lies at a share from 0 to 1 of the way."""
        length = self.high - self.low
        value = self.low * (self.high / self.low) ** share if self.log else self.low + share * length
        return min(max(round(value) if self.whole else value, self.low), self.high)

    def share(self, value: float) -> float:
        """How far from `low` to `high` a number lies."""
        if self.log:
            return math.log2(value / self.low) / math.log2(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Choices:
    """A few values."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def share(self, value: Any) -> float:
        return self.values.index(value) / (len(self.values) - 1)

    def holds(self, value: Any) -> bool:
        return value in self.values


Space = Mapping[str, Range | Choices]


# --- events --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Search:
    """A search is about to begin or to go on; `done` trials have ended before."""

    path: Path
    search: Space
    n_trials: int
    done: int
    kind: EvaluationKind
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Proposed:
    """The settings of the trial that comes next, and the run directory it trains into."""

    trial: int
    params: Mapping[str, Any]
    path: Path


@dataclass(frozen=True, slots=True)
class Training:
    """What the run of a trial says."""

    trial: int
    event: TrainEvent


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial that has ended. `value` is what the search raises, None unless finished; `reason` says why it failed."""

    trial: int
    state: str  # finished | pruned | failed
    params: Mapping[str, Any]
    value: float | None
    scores: Mapping[str, float | None]
    best: bool
    seconds: float
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """The search is over, or out of time; `importances` are shares of 1, empty with few finished trials."""

    best_trial: int
    best_run: Path
    best_recipe: Path
    report: Path
    trials: tuple[Trial, ...]
    importances: Mapping[str, float]
    note: str


TuneEvent = Search | Proposed | Training | Trial | Tuned


# --- what is searched ----------------------------------------------------------------------------


def default_search(recipe: Recipe, *, from_scratch: bool, fixed: Collection[str] = ()) -> dict[str, Range | Choices]:
    """Around what was chosen for this data and model: rate, batch, decay; dropout only for a model made anew.

    `recipe` is complete; `fixed` keys were set by hand and are left alone.
    """
    rate, batch = recipe.peak_learning_rate or 1e-3, recipe.per_device_train_batch_size or 1
    found: dict[str, Range | Choices] = {
        "learning_rate": Range(rate / 5, rate * 5, log=True),
        "per_device_train_batch_size": Choices(tuple(sorted({max(1, batch // 2), batch, 2 * batch}))),
    }
    if recipe.muon_learning_rate:
        found["muon_learning_rate"] = Range(recipe.muon_learning_rate / 3, recipe.muon_learning_rate * 3, log=True)
    if recipe.model != "bigram":
        decay = recipe.weight_decay or 1e-3
        found["weight_decay"] = Range(min(1e-3, decay), max(0.3, decay), log=True)
        if from_scratch:
            found["dropout"] = Range(0.0, max(0.3, recipe.dropout or 0.0))
    return {key: values for key, values in found.items() if key not in fixed}


def parse_search(pairs: Sequence[str]) -> dict[str, Range | Choices]:
    """`key=low:high`, `key=low:high:log` or `key=a,b,c`. Raises UserError, naming what is wrong with which."""
    found: dict[str, Range | Choices] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--search {pair}: not of the form key=values", "write for example --search dropout=0:0.3")
        _refuse(key, pair)
        found[key] = _range(key, text, pair) if ":" in text else _choices(key, text, pair)
    return found


def _refuse(key: str, pair: str) -> None:
    if key not in Recipe.model_fields:
        raise unknown_key(key, list(Recipe.model_fields), "--search")
    if key in _ASKING:
        raise UserError(f"--search {pair}: trials that are asked differently cannot be compared", f"--set {key} once")
    if key in _IDLE:
        raise UserError(f"--search {pair}: it does not change what is learnt", f"--set {key} once")
    if key == "seed":
        hint = "leave it out; train the best recipe with other seeds to see how much luck there is"
        raise UserError(
            f"--search {pair}: the best of several seeds is luck, which does not repeat on other rows", hint
        )


def _range(key: str, text: str, pair: str) -> Range:
    low, high, *scale = text.split(":")
    if scale not in ([], ["log"]):
        raise UserError(
            f"--search {pair}: not of the form low:high or low:high:log", "--search learning_rate=1e-4:1e-2:log"
        )
    bounds = _value(key, low), _value(key, high)
    if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
        raise UserError(f"--search {pair}: a range needs two numbers", f"list the values: --search {key}=a,b")
    if bounds[0] >= bounds[1]:
        raise UserError(f"--search {pair}: {low} is not below {high}", f"--search {key}={high}:{low}")
    if scale and bounds[0] <= 0:
        raise UserError(f"--search {pair}: a logarithmic range begins above 0", f"--search {key}={low}:{high}")
    return Range(*bounds, log=bool(scale))


def _choices(key: str, text: str, pair: str) -> Choices:
    values = tuple(dict.fromkeys(_value(key, part) for part in text.split(",")))
    if len(values) < 2:
        raise UserError(f"--search {pair}: one value leaves nothing to search", f"--set {pair}, or name several values")
    return Choices(values)


def _value(key: str, text: str) -> Any:
    """As the recipe understands it: 1 is 1.0 where a fraction may stand."""
    return getattr(parse_recipe(parse_settings([f"{key}={text}"]), "--search"), key)


# --- what is proposed without a model of the results ---------------------------------------------


def combinations(space: Space) -> list[dict[str, Any]] | None:
    """Every combination, where only choices are searched; None where a range is."""
    lists = [values.values for values in space.values() if isinstance(values, Choices)]
    return [dict(zip(space, each, strict=True)) for each in product(*lists)] if len(lists) == len(space) else None


def spread(space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """`count` proposals that divide each key evenly between them (a Latin hypercube; McKay et al., 1979)."""
    draw = random.Random(seed)
    columns = {}
    for key, values in space.items():
        order = draw.sample(range(count), count)
        columns[key] = [values.at((place + draw.random()) / count) for place in order]
    return [{key: column[index] for key, column in columns.items()} for index in range(count)]
