"""GET /v1/models: what can be asked, and what can be trained."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from openai.types import Model, ModelDeleted
from pydantic import BaseModel

from plume.files import remove_directory
from plume.serving.errors import ApiError
from plume.serving.keys import Caller, Reader, Writer
from plume.serving.models import Entry, Models, no_model
from plume.serving.service import ServiceDep
from plume.serving.tasks import Tasks, TasksDep

router = APIRouter(tags=["models"])


class ServedModel(Model):
    """OpenAI's model, and whether a fine-tuning job may start from it and whether it can be asked."""

    trainable: bool
    servable: bool


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ServedModel]


@router.get("/v1/models")
async def list_models(service: ServiceDep, caller: Reader) -> ModelList:
    """Everybody's models and your own by name, those that can be asked first."""
    return ModelList(object="list", data=list(_all(service.models, caller).values()))


@router.get("/v1/models/{model:path}")
async def retrieve_model(model: str, service: ServiceDep, caller: Reader) -> ServedModel:
    """One model by its name, which may hold a slash."""
    found = _all(service.models, caller).get(model)
    if found is None:
        raise no_model(model)
    return found


@router.delete("/v1/models/{model:path}")
async def delete_model(model: str, service: ServiceDep, tasks: TasksDep, caller: Writer) -> ModelDeleted:
    """Delete a model that one of your jobs has made; each checkpoint is a model of its own. What it is just saying is
    said to its end."""
    entry = service.models.entries(caller.tenant).get(model)
    if entry is None and model not in service.models.trainable:
        raise no_model(model)
    if entry is None or entry.tenant is None:
        message = f"{model!r} was not made by a job of yours: whoever runs the server removes it"
        raise ApiError(403, message, type="permission_error", param="model", code="model_not_yours")
    await asyncio.to_thread(_delete, tasks, entry)
    service.models.drop(entry)
    return ModelDeleted(id=model, object="model", deleted=True)


def _delete(tasks: Tasks, entry: Entry) -> None:
    """Raises ApiError where a job needs it, or somebody else has deleted it meanwhile."""
    with tasks.creating:  # no job begins with it now
        job = tasks.jobs.using(entry.directory)
        if job is not None:
            message = f"{entry.id!r} is needed by the job {job.id}, which is not over: cancel that first"
            raise ApiError(409, message, param="model", code="model_in_use", retry=False)
        try:
            remove_directory(entry.directory)
        except FileNotFoundError:
            raise no_model(entry.id) from None


def _all(models: Models, caller: Caller) -> dict[str, ServedModel]:
    served = {entry.id: _served(entry) for entry in models.entries(caller.tenant).values()}
    bare = {name: _architecture(name) for name in models.trainable if name not in served}
    return {**served, **bare}


def _served(entry: Entry) -> ServedModel:
    return ServedModel(
        id=entry.id, object="model", created=entry.created, owned_by=entry.owned_by, trainable=True, servable=True
    )


def _architecture(name: str) -> ServedModel:
    return ServedModel(id=name, object="model", created=0, owned_by="plume", trainable=True, servable=False)
