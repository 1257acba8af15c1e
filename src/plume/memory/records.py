"""What lies in a row: JSON in UTF-8, with the version of its form, and times as whole microseconds since 1970.

Bytes, not text: databases disagree on NUL, on case and on accents in text, and on nothing in bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from plume.errors import PlumeError, UserError
from plume.types import Message, Role

VERSION = 1  # of a message's form; a new field that older programs must not overlook needs a new one
_MESSAGE = TypeAdapter(Message)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ROLES = get_args(Role)
_rest = attrgetter(*(field.name for field in dataclasses.fields(Message) if field.name not in ("role", "content")))
_NO_REST = _rest(Message("user", ""))
_FIELDS = frozenset(field.name for field in dataclasses.fields(Message))
_DEFAULTS = {
    field.name: field.default_factory() if callable(field.default_factory) else field.default
    for field in dataclasses.fields(Message)
}


def message_bytes(message: Message) -> bytes:
    """Fields at their defaults are left out, so that a new one changes no row. Raises UserError for what is no
    message, and for text that no UTF-8 can say."""
    role, content = message.role, message.content
    if role in _ROLES and type(content) is str and _rest(message) == _NO_REST:  # most are: without a dictionary
        return _utf8(f'{{"v":{VERSION},"role":"{role}","content":{_ENCODER.encode(content)}}}', "message")
    fields = dataclasses.asdict(message)
    try:
        _MESSAGE.validate_python(fields)
    except ValidationError as error:
        if error.errors()[0]["type"] != "string_unicode":  # of which json_bytes says more
            raise UserError(f"this is no message: {_first(error)}") from None
    written = {name: value for name, value in fields.items() if value != _DEFAULTS[name]}
    return json_bytes({"v": VERSION, **written}, "message")


def messages_of(raws: Sequence[bytes]) -> list[Message]:
    """Raises PlumeError for a row that this program cannot understand."""
    try:
        return [_message(fields) for fields in json.loads(b"[" + b",".join(raws) + b"]")]
    except ValueError as error:
        raise PlumeError(f"a stored message is damaged: {error}") from None


def _message(fields: dict[str, Any]) -> Message:
    role: Any = fields.get("role")
    content = fields.get("content")
    if fields.get("v") == VERSION and len(fields) == 3 and role in _ROLES and type(content) is str:
        return Message(role, content)
    version = fields.pop("v", None)
    if version != VERSION or not fields.keys() <= _FIELDS:
        raise PlumeError(
            f"a message was written in form {version!r} with {', '.join(sorted(fields))}, which this Plume cannot read",
            "open the store with the version of Plume that wrote it, or a newer one",
        )
    try:
        return _MESSAGE.validate_python(fields)
    except ValidationError as error:
        raise PlumeError(f"a stored message is damaged: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def json_bytes(value: Any, what: str) -> bytes:
    """Raises UserError for what is not JSON, or is text that no UTF-8 can say."""
    try:
        text = _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the {what} is not JSON: {error}") from None
    return _utf8(text, what)


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        said = f"the {what} is not Unicode text: half a surrogate pair, U+{ord(error.object[error.start]):04X}"
        raise UserError(said, "send the character as a whole") from None


def metadata_bytes(metadata: Mapping[str, Any] | None) -> bytes:
    return json_bytes(dict(metadata or {}), "metadata")


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def seconds(microseconds: int) -> float:
    return microseconds / 1_000_000


def expiry(now: int, ttl: float | None, otherwise: int | None = None) -> int | None:
    """When what is written `now` becomes invisible: after `otherwise` microseconds if nobody says. Raises UserError for
    a lifetime that is none."""
    length = otherwise if ttl is None else lifetime(ttl)
    return None if length in (None, "") else now + int(length)


def lifetime(ttl: float | None) -> int | Literal[""]:
    """In microseconds, "" for no end."""
    if ttl is None:
        return ""
    if not 0 < ttl < 1e9:
        raise UserError(f"a lifetime of {ttl} seconds", "give a positive number of seconds")
    return microseconds(ttl)
