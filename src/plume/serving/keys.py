"""Who is asking: the bearer key of a request, what it may do, and whose things it sees."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from plume.serving.errors import ApiError
from plume.serving.service import ServiceDep

LOCAL = "local"  # the tenant of whoever asks on this machine without a key that is known
SCOPES = ("inference", "training", "conversations", "admin")


class Key(Protocol):
    """A key that was found. `id` may stand in logs."""

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def scopes(self) -> frozenset[str]: ...


class KeyTable(Protocol):
    """Keys by their secrets, compared in constant time."""

    def find(self, secret: str) -> Key | None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request; `key` is what limits and logs know them by."""

    tenant: str
    key: str
    scopes: frozenset[str]


def identify(request: Request, service: ServiceDep) -> Caller:
    """Raises ApiError 401 where a key is needed and this is none."""
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    found = service.keys.find(secret.strip()) if service.keys and kind.lower() == "bearer" and secret.strip() else None
    if found is not None:
        caller = Caller(found.tenant, found.id, found.scopes)
    elif service.settings.needs_key:
        message = (
            "this API key is not known here" if secret.strip() else "an API key is needed: Authorization: Bearer KEY"
        )
        raise ApiError(
            401, message, type="authentication_error", code="invalid_api_key", headers={"www-authenticate": "Bearer"}
        )
    else:
        caller = Caller(LOCAL, LOCAL, frozenset(SCOPES))
    request.state.key = caller.key
    return caller


def allowed(scope: str) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """The caller, if its key may do this. Raises ApiError 403."""

    async def caller(request: Request, service: ServiceDep) -> Caller:
        found = identify(request, service)
        if scope not in found.scopes:
            message = f"this key may not do that: it lacks the scope {scope}"
            raise ApiError(403, message, type="permission_error", code="insufficient_scope")
        service.limits.request(found)
        return found

    return caller


Inference = Annotated[Caller, Depends(allowed("inference"))]
