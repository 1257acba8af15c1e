"""The application: every router, what wraps them, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib import metadata
from typing import TYPE_CHECKING

from fastapi import FastAPI

from plume.errors import UserError
from plume.memory.store import Store
from plume.serving import (
    capabilities,
    chat,
    completions,
    conversations,
    decisions,
    embeddings,
    errors,
    files,
    fine_tuning,
    health,
    listing,
    metrics,
    responses,
    tokens,
)
from plume.serving.batches import router as batches
from plume.serving.envelope import Envelope
from plume.serving.limits import Limits
from plume.serving.metrics import Metrics
from plume.serving.models import Models, Source
from plume.serving.service import Service
from plume.serving.settings import Settings, check
from plume.serving.sweeping import forgetting, sweeping
from plume.serving.tasks import Tasks

if TYPE_CHECKING:
    from plume.serving.tracing import Tracing

_VERSION = metadata.version("plume-lm")
_ROUTERS = (
    chat.router,
    completions.router,
    conversations.router,
    embeddings.router,
    decisions.router,
    responses.router,
    listing.router,
    tokens.router,
    files.router,
    fine_tuning.router,
    batches.router,
    capabilities.router,
    health.router,
    metrics.router,
)


def create_app(settings: Settings, store: Store, sources: Iterable[Source] = ()) -> FastAPI:
    """The server as an ASGI application; `store` keeps keys and conversations, `sources` say which models there are
    besides those of the settings.

    Raises UserError for settings that cannot be meant and models that are not there.
    """
    check(settings)
    tasks = Tasks(settings.data_dir, settings.jobs_at_once)
    models = Models(settings, [*sources, tasks.jobs.entries])
    measured = Metrics(models)
    measured.watch_jobs(tasks.jobs.states)
    service = Service(settings, models, Limits(settings), store, measured, _tracing(settings))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks.start(app)
        tasks.background(sweeping(store))
        tasks.background(forgetting(models))
        try:
            yield
        finally:
            await tasks.close()
            service.models.close()
            if service.tracing is not None:
                await asyncio.to_thread(service.tracing.close)

    app = FastAPI(
        title="Plume",
        summary="Small language models, asked and trained as with OpenAI's API.",
        version=_VERSION,
        lifespan=lifespan,
        responses=errors.RESPONSES,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service, app.state.tasks = service, tasks
    errors.install(app)
    app.add_middleware(Envelope, service=service)
    for router in _ROUTERS:
        app.include_router(router)
    return app


def _tracing(settings: Settings) -> Tracing | None:
    if settings.otlp_endpoint is None:
        return None
    try:
        from plume.serving.tracing import Tracing
    except ModuleNotFoundError as error:
        raise UserError(f"the library {error.name} is missing", "pip install 'plume-lm[otel]'") from None
    return Tracing(settings.otlp_endpoint, _VERSION)
