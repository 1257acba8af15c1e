"""/v1/fine_tuning/jobs: creation, lists, cancelling, pausing, events and checkpoints."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.fine_tuning.jobs.fine_tuning_job_checkpoint import Metrics
from pydantic import Field
from starlette.responses import JSONResponse, Response

from plume.errors import NotFound
from plume.serving import sse
from plume.serving.errors import ApiError, invalid, unsupported
from plume.serving.idempotency import IdempotencyKey, digest_of, key_of, same_request
from plume.serving.jobs import events
from plume.serving.jobs.records import JobRecord, Jobs, Wished, checkpoint_name
from plume.serving.keys import Caller, Reader, Writer
from plume.serving.metadata import Metadata
from plume.serving.pages import NewestQuery, Page, page_of, part_of
from plume.serving.sampling import Body
from plume.serving.service import Service, ServiceDep
from plume.serving.stored import FileRecord, storing
from plume.serving.tasks import Tasks, TasksDep

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])
_LOOK = 0.2  # seconds between two looks at the events of a job that are streamed
_FIELD = re.compile(r"metadata\[([^\]]{1,64})\]")


class Hyperparameters(Body):
    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)] | None = None
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] | None = None
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(gt=0, le=100)] | None = None


class Supervised(Body):
    hyperparameters: Hyperparameters | None = None


class Method(Body):
    type: Literal["supervised"]
    supervised: Supervised | None = None


class JobBody(Body):
    """The parameters that are honoured; without a seed one is drawn."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None
    metadata: Metadata | None = None


class EventQuery(NewestQuery):
    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    stream: bool = False


class CheckpointQuery(NewestQuery):
    limit: Annotated[int, Field(ge=1, le=100)] = 10


@router.post("")
async def create(
    body: JobBody, service: ServiceDep, tasks: TasksDep, caller: Writer, idempotency_key: IdempotencyKey = None
) -> FineTuningJob:
    """Begin a job. The same `Idempotency-Key` with the same body gives the job that it has begun already."""
    record = await asyncio.to_thread(_created, body, service, tasks, caller, idempotency_key)
    tasks.supervisor.wake()
    return record.wire()


@router.get("")
def list_jobs(
    request: Request,
    tasks: TasksDep,
    caller: Reader,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page[FineTuningJob]:
    """Your jobs, newest first; `metadata[key]=value` and `metadata=null` choose among them."""
    wanted = _filter(request)
    part, more = part_of([one for one in tasks.jobs.documents.all(caller.tenant) if wanted(one)], after, limit)
    return page_of([one.wire() for one in part], [one.id for one in part], more=more)


@router.get("/{job_id}")
def retrieve(job_id: str, tasks: TasksDep, caller: Reader) -> FineTuningJob:
    """What has become of a job."""
    return tasks.jobs.documents.find(job_id, caller.tenant).wire()


@router.post("/{job_id}/cancel")
def cancel(job_id: str, tasks: TasksDep, caller: Writer) -> FineTuningJob:
    """End a job for good; what it has saved can still be asked."""
    _refuse_final(tasks.jobs.documents.find(job_id, caller.tenant))
    message = "The job was cancelled"
    record = tasks.jobs.advance(job_id, "cancelled", message, status="cancelled", paused=False)
    tasks.supervisor.stop(job_id)
    if record.status != "cancelled":
        _refuse_final(record)
    return record.wire()


@router.post("/{job_id}/pause")
def pause(job_id: str, tasks: TasksDep, caller: Writer) -> FineTuningJob:
    """Let a job rest: it is queued, and its metadata say that it is paused. Its process ends, so what it did since its
    last checkpoint will be done again."""
    _refuse_final(tasks.jobs.documents.find(job_id, caller.tenant))
    record = tasks.jobs.pause(job_id, paused=True)
    tasks.supervisor.stop(job_id)
    return record.wire()


@router.post("/{job_id}/resume")
def resume(job_id: str, tasks: TasksDep, caller: Writer) -> FineTuningJob:
    """Go on with a job that was paused, from its last checkpoint."""
    _refuse_final(tasks.jobs.documents.find(job_id, caller.tenant))
    record = tasks.jobs.pause(job_id, paused=False)
    tasks.supervisor.wake()
    return record.wire()


@router.get("/{job_id}/events", response_model=Page[FineTuningJobEvent])
async def list_events(
    job_id: str,
    service: ServiceDep,
    tasks: TasksDep,
    caller: Reader,
    query: Annotated[EventQuery, Query()],
) -> Response:
    """What a job has to tell, newest first; with `stream`, oldest first as it happens, until the job is over."""
    await asyncio.to_thread(tasks.jobs.documents.find, job_id, caller.tenant)
    if query.stream:
        return sse.EventStream(_told(tasks.jobs, job_id, service), service.settings.ping_seconds)
    found = await asyncio.to_thread(events.read, tasks.jobs.path(job_id))
    part, more = part_of(found[::-1], query.after, query.limit)
    return JSONResponse(page_of(part, [one.id for one in part], more=more).model_dump(mode="json"))


@router.get("/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str, tasks: TasksDep, caller: Reader, query: Annotated[CheckpointQuery, Query()]
) -> Page[FineTuningJobCheckpoint]:
    """The latest models that were saved on the way, each of which can be asked."""
    record = tasks.jobs.documents.find(job_id, caller.tenant)
    part, more = part_of(tasks.jobs.checkpoints(job_id), query.after, query.limit)
    data = [
        FineTuningJobCheckpoint(
            id=one.id,
            created_at=one.created_at,
            fine_tuned_model_checkpoint=checkpoint_name(record, one),
            fine_tuning_job_id=job_id,
            metrics=Metrics.model_validate(one.metrics),
            object="fine_tuning.job.checkpoint",
            step_number=one.step,
        )
        for one in part
    ]
    return page_of(data, [one.id for one in part], more=more)


def _origin(service: Service, name: str, tenant: str) -> tuple[str, str]:
    """What a recipe calls the model that a job starts from, and the name of the first of its line. Raises ApiError."""
    entries = service.models.entries(tenant)
    if name in entries:
        return str(entries[name].directory.absolute()), entries[name].root or name
    if name in service.models.trainable:
        return name, name
    known = ", ".join([*service.models.trainable, *entries])
    raise ApiError(
        400, f"there is no model {name!r} to start from; there are {known}", param="model", code="model_not_found"
    )


def _created(body: JobBody, service: Service, tasks: Tasks, caller: Caller, idempotency_key: str | None) -> JobRecord:
    key, request = key_of(idempotency_key), digest_of(body.model_dump())
    with tasks.creating:
        known = tasks.jobs.documents.created_under(key, caller.tenant)
        if known is not None:
            return same_request(known, known.request, request)
        return _new(body, service, tasks, caller, {"idempotency": key, "request": request})


def _new(body: JobBody, service: Service, tasks: Tasks, caller: Caller, under: Mapping[str, Any]) -> JobRecord:
    """A job that is on the disk. Raises ApiError."""
    origin, root = _origin(service, body.model, caller.tenant)
    training = _file(tasks, caller, "training_file", body.training_file)
    validation = _file(tasks, caller, "validation_file", body.validation_file) if body.validation_file else None
    id = tasks.jobs.documents.new_id()
    suffix = re.sub(r"[^\w.-]+", "-", body.suffix or "")
    record = JobRecord(
        id=id,
        tenant=caller.tenant,
        **under,
        metadata=body.metadata,
        base=body.model,
        origin=origin,
        root=root,
        name=f"ft:{root}:{caller.tenant}:{suffix}:{id.removeprefix('ftjob-')[:12]}",
        training_file=training.id,
        validation_file=validation.id if validation else None,
        seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
        wished=_wished(body),
        result_file=tasks.files.documents.new_id(),
    )
    storing(lambda: tasks.jobs.add(record, training, validation))
    return record


def _file(tasks: Tasks, caller: Caller, param: str, id: str) -> FileRecord:
    try:
        record = tasks.files.find(id, caller.tenant)
    except NotFound as error:
        raise ApiError(400, error.message, param=param, code="file_not_found") from None
    if record.purpose != "fine-tune":
        raise invalid(param, f"{param}: {id} was uploaded for {record.purpose}, not for fine-tune")
    return record


def _wished(body: JobBody) -> Wished:
    inner = body.method.supervised.hyperparameters if body.method and body.method.supervised else None
    if inner is not None and body.hyperparameters is not None:
        raise invalid("hyperparameters", "hyperparameters are given twice: leave out those beside method")
    given = inner or body.hyperparameters or Hyperparameters()
    return Wished(**given.model_dump(exclude_none=True))


def _filter(request: Request) -> Callable[[JobRecord], bool]:
    wanted: dict[str, str] = {}
    null = False
    for name, value in request.query_params.items():
        field = _FIELD.fullmatch(name)
        if field:
            wanted[field[1]] = value
        elif name == "metadata" and value == "null":
            null = True
        elif name not in ("after", "limit"):
            raise unsupported(name)
    if null and wanted:
        raise invalid("metadata", "metadata: null and keys exclude each other")
    return lambda record: not record.metadata if null else wanted.items() <= (record.metadata or {}).items()


def _refuse_final(record: JobRecord) -> None:
    if record.final:
        raise ApiError(400, f"the job is over: it has {record.status}", param="job_id", code="job_is_over")


async def _told(jobs: Jobs, id: str, service: Service) -> AsyncGenerator[str, None]:
    """Events as they come, `[DONE]` after the last. A server that is shutting down ends it without that."""
    told = 0
    while not service.draining.is_set():
        final = (await asyncio.to_thread(jobs.documents.find, id)).final  # before what it has told: nothing is missed
        found = await asyncio.to_thread(events.read, jobs.path(id))
        for event in found[told:]:
            yield sse.event(event.model_dump_json())
        told = len(found)
        if final:
            yield sse.DONE
            return
        await asyncio.sleep(_LOOK)
    closing = ApiError(503, "the server is shutting down", type="server_error", code="shutting_down", retry=False)
    yield sse.failure(closing)
