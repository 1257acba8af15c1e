"""Experiment trackers (`report_to`): what a run logs, told to the library that its owner reads.

Nothing leaves the machine unless the library was told so by its own environment variable. A tracker that fails is
left out with one warning; training goes on. A resumed run goes on in the same tracked run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

from plume.errors import UserError
from plume.events import Evaluated, Finished, RolledBack, Started, Step, TrainEvent
from plume.recipe import Recipe, dump_recipe
from plume.runs import Run

_PROJECT = "plume"
_LOG = logging.getLogger(__name__)


class Tracker(Protocol):
    """One open run of a tracking library. With `rewinds`, steps may come again: readers drop the older ones."""

    rewinds: bool

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self, *, finished: bool) -> None: ...


def require_trackers(names: Sequence[str]) -> None:
    """Raise UserError for a library that is not installed, before a run begins."""
    for name in names:
        module, _ = TRACKERS[name]
        try:
            _imported(module)
        except ImportError as error:
            hint = f"pip install 'plume-lm[{name}]'"
            raise UserError(f"report_to={name}: its library cannot be imported ({error})", hint) from None


def tracked(events: Generator[TrainEvent, None, None], run: Run, recipe: Recipe) -> Iterator[TrainEvent]:
    """The same events, told to the trackers of the recipe on their way.

    To be begun before the run drops the rows that it will log again: these are known there already.
    """
    known = {(row["step"], "kind" in row) for row in run.metrics()} if recipe.report_to else set()
    trackers: dict[str, Tracker] = {}
    finished = stepped = False
    with contextlib.closing(events):
        try:
            for event in events:
                if isinstance(event, Started):
                    trackers = _opened(run, recipe, event.resumed_from)
                elif isinstance(event, Step | Evaluated | Finished):
                    finished, stepped = isinstance(event, Finished), True
                    again = not finished and (event.step, isinstance(event, Evaluated)) in known
                    _tell(trackers, event, recipe, again=again)
                elif isinstance(event, RolledBack) and stepped:
                    known = set()  # what comes now is news
                yield event
        finally:
            for name, tracker in trackers.items():
                with _tolerated(name):
                    tracker.close(finished=finished)


def step_metrics(event: Step) -> dict[str, float]:
    """What is logged of a step, everywhere under the same names."""
    return {
        "epoch": round(event.epoch, 4),
        "train_loss": event.loss,
        "learning_rate": event.learning_rate,
        "grad_norm": event.grad_norm,
        "tokens_per_second": round(event.tokens / event.seconds, 1),
    }


def _metrics(event: Step | Evaluated | Finished) -> dict[str, float]:
    """Scores bear the kind of rows they are of: held_out/exact_match, at the end final/held_out/exact_match."""
    if isinstance(event, Step):
        return step_metrics(event)
    kinds = {event.kind: event.scores} if isinstance(event, Evaluated) else event.scores
    start = "final/" if isinstance(event, Finished) else ""
    return {
        f"{start}{kind}/{name}": value
        for kind, scores in kinds.items()
        for name, value in scores.items()
        if value is not None
    }


def _tell(trackers: dict[str, Tracker], event: Step | Evaluated | Finished, recipe: Recipe, *, again: bool) -> None:
    if isinstance(event, Step) and event.step % recipe.logging_steps and event.step not in (1, event.max_steps):
        return
    metrics = _metrics(event)
    for name, tracker in list(trackers.items()):
        if again and not tracker.rewinds:
            continue
        with _tolerated(name, lambda name=name: trackers.pop(name)):  # type: ignore[misc]
            tracker.log(event.step, metrics)


@contextlib.contextmanager
def _tolerated(name: str, otherwise: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Another library's failure is said, and ends its part in the run; the training does not depend on it."""
    try:
        yield
    except Exception as error:
        _LOG.warning("the tracker %s failed (%s: %s); training goes on without it", name, type(error).__name__, error)
        otherwise()


def _opened(run: Run, recipe: Recipe, resumed_from: int) -> dict[str, Tracker]:
    trackers: dict[str, Tracker] = {}
    for name in recipe.report_to:
        _, opening = TRACKERS[name]
        with _tolerated(name):
            trackers[name] = opening(run, recipe, resumed_from)
    return trackers


def _run_id(run: Run) -> str:
    """The same whenever the run goes on, and another for every other run."""
    told = f"{run.path.resolve().name}\0{run.info()['started']}\0{run.recipe_file.read_text(encoding='utf-8')}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _imported(module: str) -> Any:
    """Import a library with its reporting about itself switched off, unless its own variable says otherwise."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    return importlib.import_module(module)


# --- the libraries -------------------------------------------------------------------------------


class _TensorBoard:
    rewinds = True

    def __init__(self, run: Run, recipe: Recipe, resumed_from: int) -> None:
        writer = _imported("torch.utils.tensorboard").SummaryWriter
        purge = {"purge_step": resumed_from + 1} if resumed_from else {}  # readers drop what comes again
        self._writer = writer(str(run.path / "tensorboard"), **purge)
        self._writer.add_text("recipe", f"```yaml\n{dump_recipe(recipe)}```", resumed_from)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, finished: bool) -> None:  # noqa: ARG002
        self._writer.close()


class _Trackio:
    rewinds = False

    def __init__(self, run: Run, recipe: Recipe, resumed_from: int) -> None:  # noqa: ARG002
        self._trackio = _imported("trackio")
        with contextlib.redirect_stdout(io.StringIO()):  # stdout belongs to the command's result
            self._run = self._trackio.init(
                _PROJECT,
                name=f"{run.path.resolve().name}-{_run_id(run)}",
                config=recipe.model_dump(),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self, *, finished: bool) -> None:  # noqa: ARG002
        with contextlib.redirect_stdout(io.StringIO()):
            self._trackio.finish()


class _Wandb:
    rewinds = False

    def __init__(self, run: Run, recipe: Recipe, resumed_from: int) -> None:
        wandb = _imported("wandb")
        settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run.path.resolve().name,
            id=_run_id(run),
            dir=str(run.path),
            mode=mode,
            config=recipe.model_dump(),
            resume="allow" if resumed_from and mode == "online" else None,
            settings=settings,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class _MLflow:
    rewinds = False

    def __init__(self, run: Run, recipe: Recipe, resumed_from: int) -> None:  # noqa: ARG002
        client = _imported("mlflow").MlflowClient
        self._entities = _imported("mlflow.entities")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        place = None
        if uri is None:
            folder = (run.path / "mlflow").absolute()
            folder.mkdir(exist_ok=True)
            uri, place = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells of every table it makes
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*``noload``")  # MLflow's own use of SQLAlchemy
            self._client = client(tracking_uri=uri)
            self._id = self._find_or_create(run, place)
        params = [self._entities.Param(key, str(value)) for key, value in recipe.model_dump().items()]
        self._client.log_batch(self._id, params=params)

    def _find_or_create(self, run: Run, place: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        within = experiment.experiment_id if experiment else self._client.create_experiment(name, place)
        mark = _run_id(run)
        found = self._client.search_runs([within], f"tags.`plume.run` = '{mark}'", max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        created = self._client.create_run(within, run_name=run.path.resolve().name, tags={"plume.run": mark})
        return str(created.info.run_id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        values = [self._entities.Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=values)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._id, status="FINISHED" if finished else "KILLED")


TRACKERS: dict[str, tuple[str, Callable[[Run, Recipe, int], Tracker]]] = {
    "tensorboard": ("torch.utils.tensorboard", _TensorBoard),
    "trackio": ("trackio", _Trackio),
    "wandb": ("wandb", _Wandb),
    "mlflow": ("mlflow", _MLflow),
}
