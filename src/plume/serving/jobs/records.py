"""Fine-tuning jobs as they lie on the disk: one directory each, with its document, its events, its run and its models.

The server and the job's own process both change the document, each change under its lock; a status that is final is
never changed again.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.fine_tuning_job import Error, Hyperparameters, Method
from openai.types.fine_tuning.supervised_hyperparameters import SupervisedHyperparameters
from openai.types.fine_tuning.supervised_method import SupervisedMethod
from pydantic import BaseModel, ConfigDict

from plume.files import remove_leftovers
from plume.serving.documents import Documents, Record
from plume.serving.jobs import events
from plume.serving.models import Entry
from plume.serving.stored import FileRecord, Files, content_name

Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
FINAL: tuple[Status, ...] = ("succeeded", "failed", "cancelled")
PAUSED = "plume:paused"  # in the metadata that clients see: the wire has no status for it
CHECKPOINT = "checkpoint.json"
_SETTLED = 10**9  # nanoseconds after which a directory's time tells it from any later state


class Wished(BaseModel):
    """Hyperparameters, as asked for and, once they are chosen, as they are."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: Literal["auto"] | int = "auto"
    batch_size: Literal["auto"] | int = "auto"
    learning_rate_multiplier: Literal["auto"] | float = "auto"


class JobRecord(Record):
    """`base` is the model as it was asked for, `origin` what the recipe calls it: an architecture or a directory.
    `root` is the first of the line that it continues. `name` is that of the model to come, `result_file` the id of
    the file to come. `deaths` counts how often its process ended without a word since `step`, the last saved."""

    base: str
    origin: str
    root: str
    name: str
    training_file: str
    validation_file: str | None
    seed: int
    wished: Wished
    request: str
    result_file: str
    status: Status = "validating_files"
    paused: bool = False
    error: dict[str, str | None] | None = None
    finished_at: int | None = None
    estimated_finish: int | None = None
    trained_tokens: int | None = None
    step: int = 0
    deaths: int = 0

    @property
    def final(self) -> bool:
        return self.status in FINAL

    def wire(self) -> FineTuningJob:
        asked = self.wished.model_dump()
        metadata = {**(self.metadata or {}), PAUSED: "true"} if self.paused else self.metadata
        return FineTuningJob(
            id=self.id,
            created_at=self.created_at,
            error=Error(**self.error) if self.error else None,  # type: ignore[arg-type]
            fine_tuned_model=self.name if self.status == "succeeded" else None,
            finished_at=self.finished_at,
            hyperparameters=Hyperparameters(**asked),
            model=self.base,
            object="fine_tuning.job",
            organization_id=self.tenant,
            result_files=[self.result_file] if self.status == "succeeded" else [],
            seed=self.seed,
            status=self.status,
            trained_tokens=self.trained_tokens,
            training_file=self.training_file,
            validation_file=self.validation_file,
            estimated_finish=self.estimated_finish if self.status == "running" else None,
            integrations=[],
            metadata=metadata,
            method=Method(
                type="supervised",
                supervised=SupervisedMethod(hyperparameters=SupervisedHyperparameters(**asked)),
            ),
        )


class Checkpoint(BaseModel):
    """A model as it was after `step`; `metrics` have the names they have on the wire."""

    job: str
    step: int
    created_at: int
    metrics: dict[str, float | None]

    @property
    def id(self) -> str:
        return f"ftckpt_{hashlib.sha256(f'{self.job}/{self.step}'.encode()).hexdigest()[:24]}"


class Jobs:
    """Jobs by their ids, and the models they have made."""

    def __init__(self, data_dir: Path, files: Files) -> None:
        self.documents = Documents(data_dir / "jobs", JobRecord, "ftjob-", "fine-tuning job")
        self.files = files
        self._checkpoints: dict[str, tuple[int, list[Checkpoint]]] = {}

    def path(self, id: str) -> Path:
        return self.documents.path(id)

    def run(self, id: str) -> Path:
        return self.path(id) / "run"

    def checkpoints_of(self, id: str) -> Path:
        return self.path(id) / "checkpoints"

    def add(self, record: JobRecord, training: FileRecord, validation: FileRecord | None) -> JobRecord:
        """Keep a new job with its own hold on its files, so that deleting them does it no harm."""

        def fill(building: Path) -> None:
            self._link(training, building / f"training{training.shape}")
            if validation:
                self._link(validation, building / f"validation{validation.shape}")
            (building / "checkpoints").mkdir()
            events.append(building, record.id, "created", f"Created fine-tuning job: {record.id}")
            files = f"training file: {training.id}"
            files += f" and validation file: {validation.id}" if validation else ""
            events.append(building, record.id, "validating", f"Validating {files}")

        return self.documents.add(record, fill)

    def data(self, id: str) -> tuple[Path, Path | None]:
        """The training file and the validation file of a job."""
        found = {part.stem: part for part in self.path(id).iterdir() if part.stem in ("training", "validation")}
        return found["training"], found.get("validation")

    def advance(self, id: str, key: str, message: str, *, level: events.Level = "info", **change: Any) -> JobRecord:
        """Change a job that is not over, and say so in its events. Raises NotFound."""

        def changed(record: JobRecord) -> JobRecord:
            if record.final:
                return record
            events.append(self.path(id), id, key, message, level=level)
            if change.get("status") in FINAL:
                change["finished_at"] = int(time.time())
            return record.model_copy(update=change)

        return self.documents.change(id, changed)

    def begin(self, id: str, key: str, message: str) -> JobRecord:
        """A process takes the job up, unless it is over or paused."""

        def changed(record: JobRecord) -> JobRecord:
            if record.final or record.paused:
                return record
            events.append(self.path(id), id, key, message)
            return record.model_copy(update={"status": "running"})

        return self.documents.change(id, changed)

    def pause(self, id: str, *, paused: bool) -> JobRecord:
        """Let a job rest, or go on; one that does already stays as it is."""
        message = "The job was paused" if paused else "The job was resumed"

        def changed(record: JobRecord) -> JobRecord:
            if record.final or record.paused == paused:
                return record
            events.append(self.path(id), id, f"paused/{paused}/{time.time_ns()}", message)
            status = "queued" if record.status == "running" else record.status
            return record.model_copy(update={"paused": paused, "status": status})

        return self.documents.change(id, changed)

    def fail(self, id: str, code: str, message: str, param: str | None = None) -> JobRecord:
        error = {"code": code, "message": message, "param": param}
        return self.advance(id, "failed", f"The job failed: {message}", level="error", status="failed", error=error)

    def checkpoints(self, id: str) -> list[Checkpoint]:
        """The latest first."""
        directory = self.checkpoints_of(id)
        changed = directory.stat().st_mtime_ns
        known = self._checkpoints.get(id)
        if known is not None and known[0] == changed:
            return known[1]
        read = (_checkpoint(path) for path in directory.glob("step-*"))
        found = sorted((one for one in read if one), key=lambda one: -one.step)
        if time.time_ns() - changed > _SETTLED:
            self._checkpoints[id] = (changed, found)
        return found

    def entries(self) -> Iterator[Entry]:
        """The models of jobs: results, and what was saved on the way."""
        for record in self.documents.all():
            owner = {"owned_by": record.tenant, "tenant": record.tenant, "root": record.root}
            result = self.run(record.id) / "model"
            if record.status == "succeeded" and result.is_dir():
                yield Entry(record.name, result, record.finished_at or record.created_at, **owner)
            for one in self.checkpoints(record.id):
                directory = self.checkpoints_of(record.id) / f"step-{one.step:06d}"
                yield Entry(checkpoint_name(record, one), directory, one.created_at, **owner)

    def using(self, directory: Path) -> JobRecord | None:
        """A job that is not over and makes this model, or starts from it."""
        path = str(directory.absolute())
        return next(
            (
                one
                for one in self.documents.all()
                if not one.final and (one.origin == path or directory.is_relative_to(self.path(one.id)))
            ),
            None,
        )

    def states(self) -> Counter[str]:
        """How many jobs there are of each status."""
        return Counter(record.status for record in self.documents.all())

    def remove_leftovers(self) -> None:
        """Delete what killed processes left half-made. Only for whoever holds the data directory."""
        self.documents.remove_leftovers()
        for record in self.documents.all():
            remove_leftovers(self.path(record.id))
            remove_leftovers(self.run(record.id))
            remove_leftovers(self.checkpoints_of(record.id))

    def _link(self, record: FileRecord, target: Path) -> None:
        source = self.files.documents.path(record.id) / content_name(record)
        try:
            target.hardlink_to(source)
        except OSError:  # a file system without them
            shutil.copyfile(source, target)


def checkpoint_name(record: JobRecord, checkpoint: Checkpoint) -> str:
    return f"{record.name}:ckpt-step-{checkpoint.step}"


def _checkpoint(path: Path) -> Checkpoint | None:
    try:
        return Checkpoint.model_validate_json((path / CHECKPOINT).read_bytes())
    except (FileNotFoundError, NotADirectoryError):  # another process has just pruned it
        return None
