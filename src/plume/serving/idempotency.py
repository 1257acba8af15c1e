"""Requests that may be sent twice and create once: what a key has created is what its repetition is answered with."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Header

from plume.errors import DocumentChanged
from plume.memory.store import Tenant
from plume.serving.documents import Record
from plume.serving.errors import ApiError

IdempotencyKey = Annotated[str | None, Header(max_length=255)]
R = TypeVar("R", bound=Record)
_KIND = "idempotency_key"
_DAY = 24 * 3600.0  # how long a store knows a key; files, jobs and batches know theirs as long as they are there


def digest_of(values: Mapping[str, Any]) -> str:
    """By which two requests are told apart."""
    return hashlib.sha256(_text(values)).hexdigest()


def key_of(idempotency_key: str | None) -> str | None:
    return digest_of({"key": idempotency_key}) if idempotency_key else None


def same_request(known: R, before: str, now: str) -> R:
    """What a key has created. Raises ApiError where it was something else."""
    if before != now:
        raise _reused(known.id)
    return known


def reserved(
    tenant: Tenant, idempotency_key: str | None, request: Mapping[str, Any], ids: Sequence[str], user: str | None
) -> list[str]:
    """The ids under which a request about `user` is to create: those of the first with its key. Raises ApiError where
    that was another request."""
    if not idempotency_key:
        return list(ids)
    name = digest_of({"key": idempotency_key})
    # Whoever reads the store without knowing the key cannot try what was said.
    now = hmac.new(idempotency_key.encode(), _text(request), hashlib.sha256).hexdigest()
    try:
        tenant.put(_KIND, name, {"request": now, "ids": list(ids)}, at=0, ttl=_DAY, user=user)
    except DocumentChanged:
        before = tenant.get(_KIND, name).body
        if before["request"] != now:
            raise _reused(before["ids"][0]) from None
        return list(before["ids"])
    return list(ids)


def _text(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _reused(id: str) -> ApiError:
    message = f"this Idempotency-Key has created {id} from another body: choose a new key"
    return ApiError(400, message, param="Idempotency-Key", code="idempotency_key_reused")
