"""What was said before a response, and keeping it for what comes after: chains of responses, and conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openai.types.responses import Response

from plume.errors import NotFound
from plume.memory.store import Document, Tenant
from plume.serving.errors import ApiError, from_plume, invalid, not_found
from plume.serving.items import Named, named_of, show
from plume.types import Message

KIND = "response"
_KEPT_SECONDS = 30 * 24 * 3600.0  # as long as OpenAI keeps responses, if the tenant's conversations live no shorter


@dataclass(frozen=True, slots=True)
class Past:
    """Messages before the request's own; `head` is where the conversation ended when it was read."""

    messages: tuple[Message, ...] = ()
    head: int | None = None


def past(tenant: Tenant, previous: str | None, conversation: str | None, most: int, *, cut: bool) -> Past:
    """At most so many messages: more would not fit a context of as many tokens. Raises ApiError where there are more,
    unless the oldest are to be left out."""
    if conversation is not None:
        try:
            found = tenant.read(conversation, last=most + 1)
        except NotFound as error:
            raise from_plume(error, "conversation") from None
        return Past(_bounded(found.messages, most, "conversation", cut=cut), found.head)
    turns: list[Sequence[Message]] = []
    id, count = previous, 0
    while id is not None:
        body = _previous(tenant, id, previous or id)
        turn = [one.message for one in named_of([*body["input"], *body["response"]["output"]])]
        turns.append(turn)
        count += len(turn)
        if count > most:
            break
        id = body["response"].get("previous_response_id")
    messages = tuple(message for turn in reversed(turns) for message in turn)
    return Past(_bounded(messages, most, "previous_response_id", cut=cut))


def keep(tenant: Tenant, response: Response, given: Sequence[Named], before: Past, *, store: bool) -> None:
    """Write down what was asked and answered, before anybody is told. Raises ConversationChanged where the conversation
    went on meanwhile; then nothing is written."""
    shown = response.model_dump(mode="json", exclude_unset=True, by_alias=True)
    if response.conversation is not None:
        turn = [*given, *named_of(shown["output"])]
        messages, ids = [one.message for one in turn], [one.id for one in turn]
        tenant.append(response.conversation.id, messages, at=before.head, ids=ids)
    if store:
        about = shown.get("safety_identifier") or shown.get("user") or None
        ttl = min(_KEPT_SECONDS, tenant.lifetime() or _KEPT_SECONDS)
        items = [item.model_dump(mode="json", exclude_unset=True) for one in given for item in show(one)]
        tenant.put(KIND, response.id, {"response": shown, "input": items}, at=0, ttl=ttl, user=about)


def kept(tenant: Tenant, id: str) -> Document:
    """A stored response with its input. Raises ApiError 404."""
    try:
        return tenant.get(KIND, id)
    except NotFound:
        raise no_response(id) from None


def vault_of(tenant: Tenant, kind: str, id: str, body: Any) -> str | None:
    """Where what redaction takes out of a response is kept: with its conversation, or with the first of its chain."""
    if kind != KIND:
        return None
    conversation, previous = (body["response"].get(name) for name in ("conversation", "previous_response_id"))
    if conversation is not None:
        return str(conversation["id"])
    if previous is None:
        return id
    try:
        return str(tenant.get(KIND, previous).body.get("vault", previous))
    except NotFound:
        return id


def no_response(id: str, param: str | None = None, code: str = "not_found") -> ApiError:
    return not_found(f"there is no response {id!r}", param=param, code=code)


def _previous(tenant: Tenant, id: str, asked: str) -> dict[str, Any]:
    param = "previous_response_id"
    try:
        body: dict[str, Any] = tenant.get(KIND, id).body
    except NotFound:
        raise no_response(id, param, "previous_response_not_found") from None
    conversation = body["response"].get("conversation")
    if conversation is not None:
        message = f"{asked!r} belongs to the conversation {conversation['id']!r}: go on with conversation"
        raise invalid(param, message)
    return body


def _bounded(messages: tuple[Message, ...], most: int, param: str, *, cut: bool) -> tuple[Message, ...]:
    if cut:
        return messages[-most:]
    if len(messages) > most:
        message = f"the model's context is {most} tokens; more than {most} messages do not fit"
        raise ApiError(400, message, param=param, code="context_length_exceeded")
    return messages
