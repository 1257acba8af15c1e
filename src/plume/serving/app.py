"""The application: every router, what wraps them, and what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib import metadata

from fastapi import FastAPI

from plume.memory.store import Store
from plume.serving import (
    capabilities,
    chat,
    completions,
    conversations,
    decisions,
    embeddings,
    errors,
    health,
    listing,
    responses,
    tokens,
)
from plume.serving.envelope import Envelope
from plume.serving.limits import Limits
from plume.serving.models import Models, Source
from plume.serving.service import Service
from plume.serving.settings import Settings, check

_ROUTERS = (
    chat.router,
    completions.router,
    conversations.router,
    embeddings.router,
    decisions.router,
    responses.router,
    listing.router,
    tokens.router,
    capabilities.router,
    health.router,
)


def create_app(settings: Settings, store: Store, sources: Iterable[Source] = ()) -> FastAPI:
    """The server as an ASGI application; `store` keeps keys and conversations, `sources` say which models there are
    besides those of the settings.

    Raises UserError for settings that cannot be meant and models that are not there.
    """
    check(settings)
    service = Service(settings, Models(settings, sources), Limits(settings), store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            service.models.close()

    app = FastAPI(
        title="Plume",
        summary="Small language models, asked and trained as with OpenAI's API.",
        version=metadata.version("plume-lm"),
        lifespan=lifespan,
        responses=errors.RESPONSES,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    errors.install(app)
    app.add_middleware(Envelope, service=service)
    for router in _ROUTERS:
        app.include_router(router)
    return app
