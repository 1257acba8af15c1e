"""The process of one job: trains, reports, publishes. It may be killed at any moment and started again.

Run as `python -m plume.serving.jobs.worker DATA_DIR JOB`; it ends as soon as its standard input does.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from plume.errors import DataError, PlumeError, RunFailed
from plume.events import Evaluated, RolledBack, Saved, Started, Step, Stopped, TrainEvent
from plume.files import atomic_directory, write_atomic
from plume.models.bundle import save
from plume.recipe import Recipe, parse_recipe
from plume.runs import Run
from plume.serving.jobs import events
from plume.serving.jobs.records import CHECKPOINT, Checkpoint, JobRecord, Jobs
from plume.serving.stored import Files, named, renamed
from plume.training.checkpoint import load_weights
from plume.training.loop import train
from plume.training.prepare import Prepared, prepare

log = logging.getLogger("plume.serving.jobs")
_NICE = 10
_KEPT = 3  # checkpoints of a job that can be asked
_SAVES = 3  # checkpoints between two evaluations: the most that a kill costs
_EVENTS = 1000  # of steps, about, for one job
_COLUMNS = ("step", "train_loss", "valid_loss")


def main() -> None:
    data_dir, id = Path(sys.argv[1]), sys.argv[2]
    if hasattr(os, "nice"):
        os.nice(_NICE)
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    jobs = Jobs(data_dir, Files(data_dir))
    with FileLock(jobs.path(id) / "worker.lock"):  # one that a killed server has left behind may still be ending
        work(jobs, id)


def _end_with_the_server() -> None:
    sys.stdin.buffer.read()
    os._exit(1)  # everything that is on the disk is whole


def work(jobs: Jobs, id: str) -> None:
    """Bring a job to its end, whatever that is."""
    resumed = (jobs.run(id) / "run.json").is_file()
    record = jobs.documents.find(id)
    key, message = ("started", "Fine-tuning job started")
    if resumed:
        key, message = f"resumed/{time.time_ns()}", "Fine-tuning job goes on from its last checkpoint"
    record = jobs.begin(id, key, message)
    if record.final or record.paused:
        return
    names = {str(path): name for path, name in _names(jobs, record)}
    try:
        _trained(jobs, record, resumed=resumed)
        _published(jobs, record)
    except DataError as error:
        validation = jobs.data(id)[1]
        at_fault = {finding.source.file for finding in error.findings}
        param = "validation_file" if str(validation) in at_fault else "training_file"
        jobs.fail(id, f"invalid_{param}", named(error, names), param)
    except RunFailed as error:
        jobs.fail(id, "training_failed", renamed(_said(error), names))
    except PlumeError as error:
        jobs.fail(id, "invalid_request", renamed(_said(error), names))
    except OSError as error:
        log.exception("%s failed", id)
        jobs.fail(id, "storage_failed", f"a file could not be read or written: {error.strerror}")
    except Exception:
        log.exception("%s failed", id)
        jobs.fail(id, "internal_error", "the job failed; its log on the server says more")


def _names(jobs: Jobs, record: JobRecord) -> Iterator[tuple[Path, str]]:
    """What the files were called by whoever sent them."""
    training, validation = jobs.data(record.id)
    for path, id in ((training, record.training_file), (validation, record.validation_file)):
        if path is not None and id is not None:
            try:
                yield path, jobs.files.documents.find(id).filename
            except PlumeError:  # deleted meanwhile
                yield path, id


def _said(error: PlumeError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _trained(jobs: Jobs, record: JobRecord, *, resumed: bool) -> None:
    run = jobs.run(record.id)
    prepared = prepare(Run(run).recipe() if resumed else recipe_of(jobs, record), force=resumed)
    recipe = prepared.recipe if resumed else _completed(prepared.recipe, record)
    told = _Told(jobs, record, prepared)
    for event in train(recipe, run, resume=resumed):
        told.tell(event)


def recipe_of(jobs: Jobs, record: JobRecord) -> Recipe:
    """What a job asks for, as a recipe. All rows of its training file are trained, as in the hosted service."""
    training, validation = jobs.data(record.id)
    wished = {
        "num_train_epochs": record.wished.n_epochs,
        "per_device_train_batch_size": record.wished.batch_size,
    }
    return parse_recipe(
        {
            "data": str(training),
            "eval_data": str(validation) if validation else None,
            "test_size": 0,
            "model": record.origin,
            "seed": record.seed,
            "logging_steps": 1,
            "save_total_limit": _KEPT,
            **{key: value for key, value in wished.items() if value != "auto"},
        },
        record.id,
    )


def _completed(chosen: Recipe, record: JobRecord) -> Recipe:
    """The recipe as it was chosen from the data, its rates times what was asked for."""
    times = record.wished.learning_rate_multiplier
    times = 1.0 if times == "auto" else times
    change: dict[str, Any] = {"save_steps": max(1, -(-(chosen.eval_steps or 1) // _SAVES))}
    for key in ("learning_rate", "muon_learning_rate"):
        rate = getattr(chosen, key)
        if isinstance(rate, float):
            change[key] = rate * times
    return parse_recipe({**chosen.model_dump(), **change}, record.id)


@dataclass
class _Told:
    """Tells clients what happens: events, checkpoints, and where the job is."""

    jobs: Jobs
    record: JobRecord
    prepared: Prepared
    last: Step | None = None
    valid_loss: float | None = None

    def tell(self, event: TrainEvent) -> None:
        directory, id = self.jobs.path(self.record.id), self.record.id
        if isinstance(event, Started):
            self._started(event)
        elif isinstance(event, Step):
            self.last = event
            every = max(1, event.max_steps // _EVENTS)
            if event.step % every == 0 or event.step in (1, event.max_steps):
                message = f"Step {event.step}/{event.max_steps}: training loss={event.loss:.2f}"
                data = {"step": event.step, "total_steps": event.max_steps, "train_loss": event.loss}
                events.append(directory, id, f"step/{event.step}", message, data=data)
        elif isinstance(event, Evaluated):
            self._evaluated(event)
        elif isinstance(event, Saved):
            self._saved(event)
        elif isinstance(event, RolledBack):
            message = f"Training goes on from step {event.to_step}: {event.reason}"
            events.append(directory, id, f"rolled back/{event.step}/{time.time_ns()}", message, level="warn")
        elif isinstance(event, Stopped):
            events.append(directory, id, "stopped", f"Training ends after step {event.step}: {event.reason}")

    def _started(self, event: Started) -> None:
        recipe = event.recipe
        chosen = {
            "n_epochs": max(1, round(recipe.num_train_epochs or 1)),
            "batch_size": (recipe.per_device_train_batch_size or 1) * recipe.gradient_accumulation_steps,
            "learning_rate_multiplier": 1.0,
        }
        given = {key: value for key, value in self.record.wished.model_dump().items() if value != "auto"}
        wished = self.record.wished.model_copy(update={**chosen, **given})
        self._note(wished=wished)
        for choice, what in event.choices.items():
            message = f"{choice}={what.value}: {what.reason}"
            events.append(self.jobs.path(self.record.id), self.record.id, f"choice/{choice}", message)

    def _evaluated(self, event: Evaluated) -> None:
        held_out = event.kind == "held_out"
        self.valid_loss = event.scores["loss"] if held_out else None
        scores = {name: value for name, value in event.scores.items() if value is not None}
        kind = "validation" if held_out else "training questions"
        message = f"Evaluation at step {event.step} ({kind}): " + ", ".join(
            f"{name}={value:.3g}" for name, value in scores.items()
        )
        data: dict[str, Any] = {"step": event.step, "kind": event.kind, **scores}
        if held_out:
            data["valid_loss"] = event.scores["loss"]
        events.append(self.jobs.path(self.record.id), self.record.id, f"evaluated/{event.step}", message, data=data)

    def _saved(self, event: Saved) -> None:
        """Where the job is, and, at evaluations and the end, a model that can be asked."""
        last, recipe = self.last, self.prepared.recipe
        if last is not None:
            left = (last.max_steps - last.step) * last.seconds
            self._note(step=event.step, deaths=0, estimated_finish=int(time.time() + left))
        if event.step % (recipe.eval_steps or event.step) and last is not None and event.step != last.max_steps:
            return
        path = self.jobs.checkpoints_of(self.record.id) / f"step-{event.step:06d}"
        known = Checkpoint(
            job=self.record.id,
            step=event.step,
            created_at=int(time.time()),
            metrics={
                "step": event.step,
                "train_loss": last.loss if last else None,
                "valid_loss": self.valid_loss,
                "full_valid_loss": self.valid_loss,
            },
        )
        load_weights(event.path, self.prepared.bundle.model)
        with torch.random.fork_rng(), atomic_directory(path) as building:
            save(self.prepared.bundle, building, f"# Checkpoint\n\n{self.record.name}, after step {event.step}.\n")
            write_atomic(building / CHECKPOINT, known.model_dump_json())
        message = f"Checkpoint created at step {event.step}"
        events.append(self.jobs.path(self.record.id), self.record.id, f"checkpoint/{event.step}", message)
        self._prune()

    def _prune(self) -> None:
        for old in self.jobs.checkpoints(self.record.id)[_KEPT:]:
            shutil.rmtree(self.jobs.checkpoints_of(self.record.id) / f"step-{old.step:06d}", ignore_errors=True)

    def _note(self, **change: Any) -> None:
        self.jobs.documents.change(
            self.record.id, lambda record: record if record.final else record.model_copy(update=change)
        )


def _published(jobs: Jobs, record: JobRecord) -> None:
    """The result file and the model's name become visible, once."""
    run = Run(jobs.run(record.id))
    rows = run.metrics()
    epochs = max((row["epoch"] for row in rows if "epoch" in row), default=0.0)
    tokens = round(run.info()["trained_tokens"] * epochs)
    jobs.files.keep(
        record.result_file, record.tenant, "step_metrics.csv", "fine-tune-results", _metrics_file(rows).encode()
    )
    events.append(jobs.path(record.id), record.id, "model", f"New fine-tuned model created: {record.name}")
    message = "The job has successfully completed"
    jobs.advance(record.id, "succeeded", message, status="succeeded", trained_tokens=tokens, estimated_finish=None)


def _metrics_file(rows: list[dict[str, Any]]) -> str:
    """CSV with a line for each step; what was not measured there is left empty."""
    lines: dict[int, dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault(row["step"], {"step": row["step"]})
        if "train_loss" in row:
            line["train_loss"] = row["train_loss"]
        elif row.get("kind") == "held_out":
            line["valid_loss"] = row["loss"]
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines[step] for step in sorted(lines))
    return text.getvalue()


if __name__ == "__main__":
    main()
