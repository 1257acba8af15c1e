"""Who is asking: the bearer key of a request, what it may do, and whose things it sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from plume.memory.keys import SCOPES, Scope, find_key
from plume.memory.store import LOCAL
from plume.serving.errors import ApiError
from plume.serving.service import Service, ServiceDep

CALLER = "plume.caller"  # where the scope of a request that the server sends itself says for whom it does


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request; `key` is what limits and logs know them by, the public part of a key."""

    tenant: str
    key: str
    scopes: tuple[Scope, ...]

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


async def identify(request: Request, service: Service) -> Caller:
    """Raises ApiError 401 where a key is needed and this is none."""
    inner = request.scope.get(CALLER)
    if isinstance(inner, Caller):
        return inner
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip() if kind.lower() == "bearer" else ""
    found = await asyncio.to_thread(find_key, service.store, secret) if secret.startswith("plume-") else None
    if found is not None:
        caller = Caller(found.tenant, found.prefix, found.scopes)
    elif service.settings.needs_key:
        message = "this API key is not known here" if secret else "an API key is needed: Authorization: Bearer KEY"
        headers = {"www-authenticate": "Bearer"}
        raise ApiError(401, message, type="authentication_error", code="invalid_api_key", headers=headers)
    else:
        caller = Caller(LOCAL, LOCAL, SCOPES)  # the key is not known, or there is none
    request.state.key = caller.key
    return caller


def allowed(scope: Scope) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A dependency that gives the caller, if its key may do this. Raises ApiError 403, or 429 for too many requests."""

    async def caller(request: Request, service: ServiceDep) -> Caller:
        found = await identify(request, service)
        if not found.allows(scope):
            message = f"this key may not do that: it lacks the scope {scope}"
            raise ApiError(403, message, type="permission_error", code="insufficient_scope")
        service.limits.request(found)
        return found

    return caller


Reader = Annotated[Caller, Depends(allowed("read"))]
Writer = Annotated[Caller, Depends(allowed("write"))]
Admin = Annotated[Caller, Depends(allowed("admin"))]
