"""GET /v1/capabilities: what is honoured. Whatever is not listed is refused by name."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel

from plume.generation.constrain.schema import ENFORCED, FORMATS
from plume.serving.keys import Reader
from plume.serving.service import ServiceDep

router = APIRouter(tags=["capabilities"])


class Endpoint(BaseModel):
    """`parameters` are those of the body."""

    method: str
    path: str
    parameters: list[str]


class JsonSchema(BaseModel):
    keywords: list[str]
    formats: list[str]


class LimitsInForce(BaseModel):
    max_body_bytes: int
    max_upload_bytes: int
    request_seconds: float
    answers_at_once: int
    answers_waiting: int
    requests_per_minute: int | None
    tokens_per_minute: int | None


class Capabilities(BaseModel):
    object: Literal["capabilities"]
    endpoints: list[Endpoint]
    json_schema: JsonSchema
    limits: LimitsInForce


@router.get("/v1/capabilities")
async def capabilities(request: Request, service: ServiceDep, caller: Reader) -> Capabilities:  # noqa: ARG001
    """Every endpoint with the parameters it honours, what of a JSON Schema is enforced, and the limits."""
    settings = service.settings
    return Capabilities(
        object="capabilities",
        endpoints=_endpoints(request.app),
        json_schema=JsonSchema(keywords=sorted(ENFORCED), formats=sorted(FORMATS)),
        limits=LimitsInForce(
            max_body_bytes=settings.max_body_nbytes,
            max_upload_bytes=settings.max_upload_nbytes,
            request_seconds=settings.request_seconds,
            answers_at_once=settings.rows,
            answers_waiting=settings.queue,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        ),
    )


def _endpoints(app: FastAPI) -> list[Endpoint]:
    """As the application's own OpenAPI document has them, so that nothing is listed that is not there."""
    document = app.openapi()
    return [
        Endpoint(method=method.upper(), path=path, parameters=_parameters(operation, document))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def _parameters(operation: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """The keys of the body that may say something."""
    known = document["components"]["schemas"]
    kinds = operation.get("requestBody", {}).get("content", {}).values()
    schemas = [known.get(kind["schema"].get("$ref", "").rpartition("/")[2], kind["schema"]) for kind in kinds]
    found = [schema.get("properties", {}) for schema in schemas]
    return [key for properties in found for key, value in properties.items() if value.get("type") != "null"]
