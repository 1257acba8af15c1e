"""Is the process alive, and does it take requests?"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from plume.serving.errors import ApiError
from plume.serving.service import ServiceDep

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok", "ready"]


@router.get("/healthz")
async def healthz() -> Health:
    """200 as long as the process answers at all."""
    return Health(status="ok")


@router.get("/readyz")
async def readyz(service: ServiceDep) -> Health:
    """200 while requests are taken, 503 from the moment the server is told to stop."""
    if service.draining.is_set():
        raise ApiError(503, "the server is shutting down", type="server_error", code="shutting_down", retry=False)
    return Health(status="ready")
