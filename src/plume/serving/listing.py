"""GET /v1/models: what can be asked, and what can be trained."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from openai.types import Model
from pydantic import BaseModel

from plume.serving.errors import not_found
from plume.serving.keys import Reader
from plume.serving.models import Entry, Models
from plume.serving.service import ServiceDep

router = APIRouter(tags=["models"])


class ServedModel(Model):
    """OpenAI's model, and whether a fine-tuning job may start from it and whether it can be asked."""

    trainable: bool
    servable: bool


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ServedModel]


@router.get("/v1/models")
async def list_models(service: ServiceDep, caller: Reader) -> ModelList:  # noqa: ARG001 - it may ask
    """Every model by name, those that can be asked first."""
    return ModelList(object="list", data=list(_all(service.models).values()))


@router.get("/v1/models/{model:path}")
async def retrieve_model(model: str, service: ServiceDep, caller: Reader) -> ServedModel:  # noqa: ARG001
    """One model by its name, which may hold a slash."""
    found = _all(service.models).get(model)
    if found is None:
        raise not_found(f"there is no model {model!r} here", param="model", code="model_not_found")
    return found


def _all(models: Models) -> dict[str, ServedModel]:
    served = {entry.id: _served(entry) for entry in models.entries().values()}
    bare = {name: _architecture(name) for name in models.trainable if name not in served}
    return {**served, **bare}


def _served(entry: Entry) -> ServedModel:
    return ServedModel(
        id=entry.id, object="model", created=entry.created, owned_by=entry.owned_by, trainable=True, servable=True
    )


def _architecture(name: str) -> ServedModel:
    return ServedModel(id=name, object="model", created=0, owned_by="plume", trainable=True, servable=False)
