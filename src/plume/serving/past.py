"""What was said before a response, and keeping it for what comes after: chains of responses, and conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from typing import Any

from openai.types.responses import Response

from plume.chat import history
from plume.errors import NotFound
from plume.memory.redacting import check_vault
from plume.memory.store import Document, Tenant
from plume.serving.errors import ApiError, from_plume, invalid, not_found
from plume.serving.items import Named, named_of, show
from plume.types import Message

KIND = "response"
FIRST = "first_response_id"  # in a kept response: where its chain began
_KEPT_SECONDS = 30 * 24 * 3600.0  # as long as OpenAI keeps responses, if the tenant's conversations live no shorter


@dataclass(frozen=True, slots=True)
class Past:
    """Messages before the request's own, about whom they are, and where the conversation ended when it was read; of a
    chain, its first response, as far as it is known."""

    messages: tuple[Message, ...] = ()
    user: str | None = None
    head: int | None = None
    first: str | None = None


def past(tenant: Tenant, previous: str | None, conversation: str | None, most: int, *, cut: bool) -> Past:
    """What a context of `most` tokens could hold, and no less: more messages are not read, but for the persona that it
    all begins with. Raises ApiError where there are more, unless the oldest are to be `cut`, which is for who knows
    their tokens; WrongKey where nobody could keep what comes next."""
    if conversation is not None:
        check_vault(tenant, conversation)
        try:
            found = history(tenant, conversation, most)
        except NotFound as error:
            raise from_plume(error, "conversation") from None
        if found.unread and not cut:
            raise _too_many(most, "conversation")
        return Past(found.messages, found.user, found.head)
    turns: list[Sequence[Message]] = []
    persona: tuple[Message, ...] = ()
    id, count, user, first = previous, 0, None, None
    while id is not None:
        document = _previous(tenant, id, previous or id)
        if not turns:
            check_vault(tenant, document.body.get("vault", id))
        body, user = document.body, user or document.user
        first = first or body.get(FIRST)
        turn = [one.message for one in named_of([*body["input"], *body["response"]["output"]])]
        turns.append(turn)
        count += len(turn)
        if count > most and not cut:
            raise _too_many(most, "previous_response_id")
        earlier = body["response"].get("previous_response_id")
        first = first or (id if earlier is None else None)
        if count > most and earlier is not None:
            turns[-1] = list(dropwhile(_is_system, turn))  # said in the middle of the chain, it is no persona
            persona = _persona(tenant, document)
            break
        id = earlier
    messages = tuple(message for turn in reversed(turns) for message in turn)
    return Past((*persona, *messages), user, first=first)


def keep(tenant: Tenant, response: Response, given: Sequence[Named], before: Past, *, store: bool) -> None:
    """Write down what was asked and answered, before anybody is told. Raises ConversationChanged where the conversation
    went on meanwhile; then nothing is written."""
    shown = response.model_dump(mode="json", exclude_unset=True, by_alias=True)
    if response.conversation is not None:
        turn = [*given, *named_of(shown["output"])]
        messages, ids = [one.message for one in turn], [one.id for one in turn]
        tenant.append(response.conversation.id, messages, at=before.head, ids=ids)
    if store:
        about = shown.get("safety_identifier") or shown.get("user") or before.user
        ttl = min(_KEPT_SECONDS, tenant.lifetime() or _KEPT_SECONDS)
        items = [item.model_dump(mode="json", exclude_unset=True) for one in given for item in show(one)]
        body = {"response": shown, "input": items, **({FIRST: before.first} if before.first else {})}
        tenant.put(KIND, response.id, body, at=0, ttl=ttl, user=about)


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


def _previous(tenant: Tenant, id: str, asked: str) -> Document:
    param = "previous_response_id"
    try:
        document = tenant.get(KIND, id)
    except NotFound:
        raise no_response(id, param, "previous_response_not_found") from None
    conversation = document.body["response"].get("conversation")
    if conversation is not None:
        message = f"{asked!r} belongs to the conversation {conversation['id']!r}: go on with conversation"
        raise invalid(param, message)
    return document


def _persona(tenant: Tenant, later: Document) -> tuple[Message, ...]:
    """The system messages that a chain begins with; none where its first response is gone."""
    try:
        while (previous := later.body["response"].get("previous_response_id")) is not None:
            later = tenant.get(KIND, later.body.get(FIRST, previous))
    except NotFound:
        return ()
    return tuple(takewhile(_is_system, (one.message for one in named_of(later.body["input"]))))


def _is_system(message: Message) -> bool:
    return message.role == "system"


def _too_many(most: int, param: str) -> ApiError:
    message = f"the model's context is {most} tokens; more than {most} messages do not fit"
    return ApiError(400, message, param=param, code="context_length_exceeded")
