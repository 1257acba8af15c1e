"""A search for better settings: runs by proposed recipes, compared by what they answer. A generator of events.

Trials are kept in study.db (SQLite). The proposal of a trial depends on the results before it and on the seed alone,
and each trial is a run that resumes exactly, so a search that was killed ends as if it never had been.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from plume.errors import DataError, PlumeError, RunFailed, UserError
from plume.evaluation.search_report import write_search_report
from plume.events import Evaluated, Started
from plume.files import atomic_directory, remove_leftovers, write_atomic
from plume.recipe import Recipe, parse_recipe
from plume.runs import Run, refuse_occupied
from plume.training.loop import train
from plume.training.prepare import Prepared, prepare
from plume.training.processes import refuse_several
from plume.training.search import (
    Choices,
    Proposed,
    Range,
    Search,
    Space,
    Training,
    Trial,
    Tuned,
    TuneEvent,
    combinations,
    default_search,
    spread,
)
from plume.training.sources import fingerprints
from plume.types import EvaluationKind, Finding

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial as Open

_FORMAT = 1
_SPREAD = 6  # trials before the results decide what is proposed
_TRIED_WHOLE = 32  # so few combinations are tried one by one
_COMPARED, _UNTOUCHED = 4, 2  # finished trials before any is stopped early; evaluations before one may be
_TELLING = 8  # finished trials that importances need


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a search was begun with; tune.json. `replies` is the most answers that are ever counted."""

    recipe: Recipe
    search: Space
    n_trials: int
    first: Mapping[str, Any] | None  # what Plume chooses by itself, when the search holds it
    kind: EvaluationKind
    replies: int
    data: Mapping[str, str]


def tune(
    recipe: Recipe,
    output_dir: Path,
    *,
    search: Space | None = None,
    fixed: Collection[str] = (),
    n_trials: int | None = None,
    timeout: float | None = None,
    resume: bool = False,
) -> Generator[TuneEvent, None, None]:
    """Train up to `n_trials` (20) runs under output_dir/trials and yield what happens.

    Better is more exact answers, then fewer bits per byte; for plain text, fewer bits per byte. Without `search`,
    keys are searched around what Plume chooses by itself, but for the `fixed` ones. After `timeout` seconds no new
    trial begins. With `resume`, the search in `output_dir` goes on, up to `n_trials` if that is more than before.
    Raises UserError (DataError for rows) before anything is written, RunFailed when no trial could be finished.
    """
    refuse_several("a search")
    _library()
    findings: tuple[Finding, ...] = ()
    if resume:
        plan = _kept(output_dir, n_trials)
    else:
        plan, findings = _begun(recipe, output_dir, search, fixed, 20 if n_trials is None else n_trials)
    began = time.monotonic()
    with _study(output_dir) as study:
        done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        yield Search(output_dir, plan.search, plan.n_trials, done, plan.kind, findings)
        while done < plan.n_trials and (timeout is None or time.monotonic() - began < timeout):
            yield from _run_trial(study, plan, output_dir)
            done += 1
        yield _conclude(study, plan, output_dir)


# --- beginning -----------------------------------------------------------------------------------


def _library() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna, which is not installed", "pip install 'plume-lm[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _begun(
    recipe: Recipe, path: Path, search: Space | None, fixed: Collection[str], n_trials: int
) -> tuple[_Plan, tuple[Finding, ...]]:
    """Everything is checked, then the directory made. The data is read once here, and once by each trial."""
    refuse_occupied(path)
    for key in fixed:
        if search and key in search:
            raise UserError(f"{key} is both set and searched", f"leave out --set {key} or --search {key}")
    prepared = prepare(recipe)
    space = search or default_search(prepared.recipe, from_scratch=prepared.from_scratch, fixed=fixed)
    if not space:
        raise UserError("every key that is searched by default was set", "name others: --search key=low:high")
    if search:  # such keys may not go together with this model
        prepare(_with(recipe, {key: values.at(0.0) for key, values in space.items()}))
    chosen = {key: getattr(prepared.recipe, key) for key in space}
    kind: EvaluationKind = "held_out" if prepared.split.held_out else "recall"
    plan = _Plan(
        recipe=recipe,
        search=space,
        n_trials=_possible(space, n_trials),
        first=chosen if all(values.holds(chosen[key]) for key, values in space.items()) else None,
        kind=kind,
        replies=_replies(prepared),
        data=fingerprints(recipe),
    )
    with atomic_directory(path) as building:
        (building / "trials").mkdir()
        _write_plan(building, plan)
    return plan, prepared.findings


def _replies(prepared: Prepared) -> int:
    asked = prepared.split.held_out or prepared.split.train
    return sum(1 for example in asked if not example.is_text for _ in example.turns())


def _possible(space: Space, n_trials: int) -> int:
    """Few combinations are tried once each; a repeat would give the same model."""
    every = combinations(space)
    return min(n_trials, len(every)) if every and len(every) <= _TRIED_WHOLE else n_trials


def _kept(path: Path, n_trials: int | None) -> _Plan:
    """The plan of a search that was begun. Raises UserError when there is none, or when its data has changed."""
    try:
        stored = json.loads((path / "tune.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "begin one: plume tune DATA --output-dir DIR"
        raise UserError(f"{path} is not a search: it has no tune.json", hint) from None
    plan = _Plan(
        recipe=parse_recipe(stored["recipe"], str(path / "tune.json")),
        search={
            key: Choices(tuple(values["values"])) if "values" in values else Range(**values)
            for key, values in stored["search"].items()
        },
        **{key: stored[key] for key in ("n_trials", "first", "kind", "replies", "data")},
    )
    for file, digest in fingerprints(plan.recipe).items():
        if digest != plan.data.get(file):
            hint = "restore the file, or begin a new search in another --output-dir"
            raise UserError(f"{file} has changed since the search began: trials could not be compared", hint)
    remove_leftovers(path)
    remove_leftovers(path / "trials")
    if n_trials is not None and n_trials != plan.n_trials:
        if n_trials < plan.n_trials:
            raise UserError(f"the search was begun with n_trials={plan.n_trials}", "name more, or leave it out")
        plan = replace(plan, n_trials=_possible(plan.search, n_trials))
        _write_plan(path, plan)
    return plan


def _write_plan(path: Path, plan: _Plan) -> None:
    values = {key: asdict(found) for key, found in plan.search.items()}
    stored = {
        "format": _FORMAT,
        **{field: getattr(plan, field) for field in ("n_trials", "first", "kind", "replies", "data")},
        "search": values,
        "recipe": plan.recipe.model_dump(),
    }
    write_atomic(path / "tune.json", json.dumps(stored, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def _study(path: Path) -> Iterator[Study]:
    """The stored trials; SQLite survives a kill at any moment."""
    optuna = _library()
    storage = optuna.storages.RDBStorage(f"sqlite:///{(path / 'study.db').absolute()}")
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_COMPARED, n_warmup_steps=_UNTOUCHED)
    try:
        yield optuna.create_study(
            storage=storage, study_name="plume", direction="maximize", pruner=pruner, load_if_exists=True
        )
    finally:
        storage.remove_session()
        storage.engine.dispose()


# --- one trial -----------------------------------------------------------------------------------


def _run_trial(study: Study, plan: _Plan, path: Path) -> Generator[TuneEvent, None, None]:
    optuna = _library()
    trial = _next(study, plan)
    params = {key: _suggest(trial, key, values) for key, values in plan.search.items()}
    run = path / "trials" / f"{trial.number:04d}"
    yield Proposed(trial.number, params, run)
    began = time.monotonic()
    state, reason = optuna.trial.TrialState.PRUNED, None
    try:
        pruned = yield from _train(study, trial, plan, _with(plan.recipe, params), run)
        if not pruned:
            state = optuna.trial.TrialState.COMPLETE
    except DataError:
        raise
    except (RunFailed, UserError) as error:  # counted as worst, so that its neighbourhood is avoided
        reason = error.message
    trial.set_user_attr("seconds", round(time.monotonic() - began, 2))
    trial.set_user_attr("reason", reason)
    value = None
    if state == optuna.trial.TrialState.COMPLETE:
        scores = Run.open(run).info()["scores"][plan.kind]
        trial.set_user_attr("scores", scores)
        value = objective(scores, plan.replies)
    study.tell(trial, value, state=state)
    _tidy(study, path)
    yield _ended(study)[trial.number]


def _next(study: Study, plan: _Plan) -> Open:
    """The trial that a kill has left open, or a new one."""
    optuna = _library()
    trials = study.get_trials(deepcopy=False)
    number = sum(trial.state.is_finished() for trial in trials)
    study.sampler = optuna.samplers.TPESampler(
        seed=(plan.recipe.seed * 1_000_003 + number) % 2**32, n_startup_trials=0, multivariate=True
    )
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            return cast("Open", optuna.trial.Trial(study, trial._trial_id))
    listed = _listed(plan)
    if number < len(listed) and len(trials) == number:
        study.enqueue_trial(listed[number])
    return study.ask()


def _listed(plan: _Plan) -> list[dict[str, Any]]:
    """What is proposed whatever the results: first Plume's own choice, then all combinations or a spread."""
    first = [dict(plan.first)] if plan.first else []
    every = combinations(plan.search)
    if every and len(every) <= _TRIED_WHOLE:
        random.Random(plan.recipe.seed).shuffle(every)
        return first + [each for each in every if each not in first]
    return first + spread(plan.search, _SPREAD - len(first), plan.recipe.seed)


def _suggest(trial: Open, key: str, values: Range | Choices) -> Any:
    if isinstance(values, Choices):
        return trial.suggest_categorical(key, values.values)
    if values.whole:
        return trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(key, values.low, values.high, log=values.log)


def _with(recipe: Recipe, params: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial; proposed epochs count, not the steps that an earlier run made of others."""
    values = {**recipe.model_dump(), **params}
    if "num_train_epochs" in params and "max_steps" not in params:
        values.pop("max_steps")
    return parse_recipe(values, "--search")


def _train(study: Study, trial: Open, plan: _Plan, recipe: Recipe, run: Path) -> Generator[Training, None, bool]:
    """Train, or go on training, and say whether the trial was stopped early."""
    if trial.should_prune():
        return True
    every = last = 1
    with closing(train(recipe, run, resume=(run / "run.json").is_file())) as events:
        for event in events:
            yield Training(trial.number, event)
            if isinstance(event, Started):
                last = event.recipe.max_steps or 1
                every = event.recipe.eval_steps or last
            elif isinstance(event, Evaluated) and event.kind == plan.kind:
                _report(study, trial, objective(event.scores, plan.replies), -(-event.step // every))
                trial.set_user_attr("scores", dict(event.scores))
                if event.step < last and trial.should_prune():
                    return True
    return False


def _report(study: Study, trial: Open, value: float, evaluation: int) -> None:
    """By the number of the evaluation, so that trials with different numbers of steps compare."""
    known = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    if evaluation not in known:  # a resumed run repeats what came after its checkpoint
        trial.report(value, evaluation)


def objective(scores: Mapping[str, float | None], replies: int) -> float:
    """Larger is better: the rate of exact answers, and less than one answer's worth for fewer bits per byte.

    Bits and not the loss, so that tokenizers compare. Without questions, the bits alone.
    """
    bits = scores["bits_per_byte"] or 0.0
    rate = scores["exact_match"]
    return -bits if rate is None else rate - bits / (1 + bits) / max(1, replies)


# --- what is left --------------------------------------------------------------------------------


def _ended(study: Study) -> dict[int, Trial]:
    found = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    finished = [trial for trial in found if trial.value is not None and trial.state.name == "COMPLETE"]
    best = max(finished, key=lambda trial: (trial.value, -trial.number), default=None)
    ended = {}
    for trial in found:
        reason = trial.user_attrs.get("reason")
        state = "finished" if trial in finished else "failed" if reason else "pruned"
        ended[trial.number] = Trial(
            trial=trial.number,
            state=state,
            params=dict(trial.params),
            value=trial.value if state == "finished" else None,
            scores=trial.user_attrs.get("scores", {}),
            best=best is not None and trial.number == best.number,
            seconds=trial.user_attrs.get("seconds", 0.0),
            reason=reason,
        )
    return ended


def _tidy(study: Study, path: Path) -> None:
    """Of trials that have ended, all but the best keep no weights: their recipe makes them again."""
    for number, trial in _ended(study).items():
        run = Run(path / "trials" / f"{number:04d}")
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        if trial.best:
            write_atomic(path / "best-recipe.yaml", run.recipe_file.read_text(encoding="utf-8"))
        else:
            shutil.rmtree(run.model, ignore_errors=True)


def _conclude(study: Study, plan: _Plan, path: Path) -> Tuned:
    _tidy(study, path)
    trials = tuple(_ended(study).values())
    best = next((trial for trial in trials if trial.best), None)
    if best is None:
        raise _no_result(trials, path)
    finished = [trial for trial in trials if trial.state == "finished"]
    importances = _library().importance.get_param_importances(study) if len(finished) >= _TELLING else {}
    run = path / "trials" / f"{best.trial:04d}"
    note = _note(plan, len(trials), best, run)
    report = write_search_report(
        path,
        plan.recipe,
        [asdict(trial) for trial in trials],
        importances,
        {
            key: [(trial.trial, values.share(trial.params[key])) for trial in trials]
            for key, values in plan.search.items()
        },
        note,
    )
    return Tuned(best.trial, run, path / "best-recipe.yaml", report, trials, importances, note)


def _no_result(trials: tuple[Trial, ...], path: Path) -> PlumeError:
    why = next((trial.reason for trial in trials if trial.reason), None)
    if why:
        return RunFailed(f"none of {len(trials)} trials could be finished; the first: {why}", "search other values")
    return PlumeError("no trial was finished in time", f"go on: plume tune --resume --output-dir {path}")


def _note(plan: _Plan, count: int, best: Trial, run: Path) -> str:
    """What the best score is worth."""
    if plan.kind == "recall":
        return (
            "No row was held out, so the search has found what learns the training rows by heart. "
            "Name other rows with --eval-data to find what answers new ones."
        )
    rows = f"the rows of {plan.recipe.eval_data}" if plan.recipe.eval_data else "the held-out rows"
    return (
        f"The score of trial {best.trial} is the best of {count} on {rows}, which have chosen it: on new rows expect "
        f"less. Measure it on rows that took no part: plume eval {run} FILE."
    )
