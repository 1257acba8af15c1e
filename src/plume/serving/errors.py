"""Every answer that is an error has OpenAI's shape, whatever went wrong: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from plume.errors import AlreadyExists, ConversationChanged, DocumentChanged, NotFound, PlumeError, UserError, WrongKey
from plume.serving import record

log = logging.getLogger("plume.serving")

ErrorType = Literal[
    "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"
]
_SHOWN = 200  # characters of a value in a message


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorObject


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is at fault"},
    "5XX": {"model": ErrorBody, "description": "The server is at fault, or is shutting down"},
}


class ApiError(Exception):
    """An answer with an error in it. `retry` tells the client whether the same request may succeed later; None leaves
    that to its own rules (it repeats 408, 409, 429 and 5xx)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: ErrorType = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = ErrorObject(message=message, type=type, param=param, code=code)
        self.headers = dict(headers or {})
        if retry is not None:
            self.headers["x-should-retry"] = "true" if retry else "false"
        if retry_after is not None:
            self.headers["retry-after"] = str(max(1, round(retry_after + 0.5)))
            self.headers["retry-after-ms"] = str(max(1, round(retry_after * 1000)))

    def body(self) -> dict[str, Any]:
        return {"error": self.error.model_dump()}


def unsupported(param: str, message: str | None = None) -> ApiError:
    """A parameter that would not be honoured is refused by name."""
    return ApiError(
        400, message or f"{param} is not supported by this server", param=param, code="unsupported_parameter"
    )


def invalid(param: str, message: str) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")


def not_found(message: str, *, param: str | None = None, code: str = "not_found") -> ApiError:
    return ApiError(404, message, param=param, code=code)


def from_plume(error: PlumeError, param: str | None = None) -> ApiError:
    """What the layers below say: the request's fault, or a failure that repeating it would not mend."""
    if isinstance(error, WrongKey):  # the operator is at fault, and the log is where they look
        log.error("request %s failed: %s", record.current().id, error.message)
        return internal_error()
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    if isinstance(error, NotFound):
        return not_found(message, param=param)
    if isinstance(error, AlreadyExists | ConversationChanged | DocumentChanged):
        return ApiError(409, message, param=param, code="conflict", retry=False)
    if isinstance(error, UserError):
        return ApiError(400, message, param=param, code="invalid_value" if param else None)
    return ApiError(500, message, type="server_error", code="failed", retry=False)


def response(error: ApiError) -> Response:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def internal_error() -> ApiError:
    """Nothing of the fault itself: that stands in the server's log under the request's id."""
    return ApiError(
        500, "the server failed; its log says more", type="server_error", code="internal_error", retry=False
    )


def install(app: FastAPI) -> None:
    """Give every kind of failure its answer."""

    async def api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return response(error)

    async def validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response(from_validation(error))

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return response(_from_http(error))

    async def plume_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, PlumeError)
        return response(from_plume(error))

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(PlumeError, plume_error)


def _from_http(error: HTTPException) -> ApiError:
    if isinstance(error.__cause__, ApiError):  # what stopped the reading of a body
        return error.__cause__
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    messages = {404: "there is no such URL here", 405: "this URL does not take that method"}
    status = 400 if error.status_code == 422 else error.status_code
    message = messages.get(status, str(error.detail))
    kind: ErrorType = "server_error" if status >= 500 else "invalid_request_error"
    return ApiError(status, message, type=kind, code=codes.get(status), headers=error.headers)


def from_validation(error: RequestValidationError) -> ApiError:
    """What is wrong with the first parameter at fault; of the types it might have had, the one that came furthest."""
    found = error.errors()
    first = max((one for one in found if one["loc"][:2] == found[0]["loc"][:2]), key=lambda one: len(one["loc"]))
    param = _param(first["loc"], error.body, missing=first["type"] == "missing")
    if first["type"] in ("extra_forbidden", "none_required"):
        return unsupported(param or "body")
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing", param=param, code="missing_required_parameter")
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['ctx']['error']}", code="invalid_json")
    given = repr(first.get("input"))
    shown = given if len(given) <= _SHOWN else given[:_SHOWN] + "…"
    where = f"{param}: " if param else ""
    return ApiError(400, f"{where}{first['msg']}, not {shown}", param=param, code="invalid_value")


def _param(loc: Sequence[str | int], body: Any, *, missing: bool) -> str | None:
    """The place in the request as a person writes it, without the names of the types that were tried there."""
    text, value = "", body
    for position, part in enumerate(loc[1:], 1):
        last = position == len(loc) - 1
        if isinstance(part, int):
            text += f"[{part}]"
            value = value[part] if isinstance(value, list) and part < len(value) else None
        elif isinstance(value, dict) and (part in value or (missing and last)):
            text += f".{part}" if text else part
            value = value.get(part)
        elif not isinstance(value, dict | list) and loc[0] != "body":
            text += f".{part}" if text else part
    return text or None
