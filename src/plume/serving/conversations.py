"""/v1/conversations: what was said, kept under an id; responses go on with it and add to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from openai.types.conversations import Conversation, ConversationDeletedResource
from pydantic import Field
from starlette.responses import JSONResponse, Response

from plume.errors import AlreadyExists, NotFound
from plume.memory import store as memory
from plume.memory.store import Item, Tenant, new_id
from plume.serving.errors import from_plume
from plume.serving.idempotency import IdempotencyKey, reserved
from plume.serving.items import ITEM, LISTED, InputItem, Named, named, show
from plume.serving.keys import Reader, Writer
from plume.serving.metadata import Metadata
from plume.serving.pages import Newest, NoQuery, Ordered, OrderedQuery, Page, page_of, part_of
from plume.serving.sampling import Body
from plume.serving.service import ServiceDep

router = APIRouter(tags=["conversations"])
_TOGETHER = 20  # items of one request, as OpenAI has it

Items = Annotated[list[InputItem], Field(max_length=_TOGETHER)]


class ConversationBody(Body):
    """`user` is not OpenAI's: the person whom it is about, as responses name them."""

    items: Items | None = None
    metadata: Metadata | None = None
    user: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class UpdateBody(Body):
    """The metadata takes the place of what there was; null empties it."""

    metadata: Metadata | None


class ItemsBody(Body):
    items: Annotated[Items, Field(min_length=1)]


@router.post("/v1/conversations")
async def create(
    body: ConversationBody, service: ServiceDep, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Conversation:
    """A new conversation, with its first items if there are any. The same `Idempotency-Key` with the same body gives
    the conversation that it has made already."""
    tenant = service.store.tenant(caller.tenant)
    items, request = named(body.items or ()), {"path": "conversations", **body.model_dump()}

    def created() -> Conversation:
        wanted = [new_id("conv"), *(one.id for one in items)]
        id, *ids = reserved(tenant, idempotency_key, request, wanted, body.user)
        own = [one._replace(id=own) for one, own in zip(items, ids, strict=True)]
        return _create(tenant, id, body, own)

    async with service.turn(caller.tenant, idempotency_key):
        return await asyncio.to_thread(created)


@router.get("/v1/conversations")
async def list_conversations(service: ServiceDep, caller: Reader, query: Newest) -> Page[Conversation]:
    """The conversations of whoever asks, newest first. OpenAI's API has no such list."""
    tenant = service.store.tenant(caller.tenant)
    try:
        found = await asyncio.to_thread(tenant.conversations, after=query.after, limit=query.limit + 1)
    except NotFound as error:
        raise from_plume(error, "after") from None
    part, more = part_of(found, None, query.limit)
    return page_of([_shown(one) for one in part], [one.id for one in part], more=more)


@router.get("/v1/conversations/{conversation_id}")
async def retrieve(conversation_id: str, service: ServiceDep, caller: Reader, query: NoQuery) -> Conversation:  # noqa: ARG001
    """A conversation without its items."""
    tenant = service.store.tenant(caller.tenant)
    return _shown(await asyncio.to_thread(tenant.read, conversation_id, first=0))


@router.post("/v1/conversations/{conversation_id}")
async def update(conversation_id: str, body: UpdateBody, service: ServiceDep, caller: Writer) -> Conversation:
    """Replace the metadata of a conversation."""
    tenant = service.store.tenant(caller.tenant)
    return _shown(await asyncio.to_thread(tenant.update, conversation_id, body.metadata or {}))


@router.delete("/v1/conversations/{conversation_id}")
async def delete(conversation_id: str, service: ServiceDep, caller: Writer) -> ConversationDeletedResource:
    """Delete a conversation with its items; responses that were kept of it stay."""
    await asyncio.to_thread(service.store.tenant(caller.tenant).delete, conversation_id)
    return ConversationDeletedResource(id=conversation_id, object="conversation.deleted", deleted=True)


@router.post("/v1/conversations/{conversation_id}/items", response_model=None, responses=LISTED)
async def create_items(
    conversation_id: str,
    body: ItemsBody,
    service: ServiceDep,
    caller: Writer,
    query: NoQuery,  # noqa: ARG001
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Add items at the end, all of them or none. The same `Idempotency-Key` with the same body adds them once."""
    tenant = service.store.tenant(caller.tenant)
    items, request = named(body.items), {"path": conversation_id, **body.model_dump()}

    def added() -> tuple[Item, ...]:
        user = tenant.read(conversation_id, first=0).user
        ids = reserved(tenant, idempotency_key, request, [one.id for one in items], user)
        return _append(tenant, conversation_id, [one._replace(id=own) for one, own in zip(items, ids, strict=True)])

    async with service.turn(caller.tenant, conversation_id):
        return _listed(await asyncio.to_thread(added), _TOGETHER)


@router.get("/v1/conversations/{conversation_id}/items", response_model=None, responses=LISTED)
async def list_items(conversation_id: str, service: ServiceDep, caller: Reader, query: Ordered) -> Response:
    """The items of a conversation, the newest first unless asked otherwise."""
    tenant = service.store.tenant(caller.tenant)
    return _listed(await asyncio.to_thread(_items, tenant, conversation_id, query), query.limit)


@router.get("/v1/conversations/{conversation_id}/items/{item_id}", response_model=None, responses=ITEM)
async def retrieve_item(
    conversation_id: str,
    item_id: str,
    service: ServiceDep,
    caller: Reader,
    query: NoQuery,  # noqa: ARG001
) -> Response:
    """One item of a conversation."""
    tenant = service.store.tenant(caller.tenant)
    return JSONResponse(_shown_items(await asyncio.to_thread(tenant.item, conversation_id, item_id))[0])


@router.delete("/v1/conversations/{conversation_id}/items/{item_id}")
async def delete_item(conversation_id: str, item_id: str, service: ServiceDep, caller: Writer) -> Conversation:
    """Take one item out of a conversation, which is returned."""
    tenant = service.store.tenant(caller.tenant)
    async with service.turn(caller.tenant, conversation_id):
        return _shown(await asyncio.to_thread(tenant.remove, conversation_id, [item_id]))


def _create(tenant: Tenant, id: str, body: ConversationBody, items: Sequence[Named]) -> Conversation:
    try:
        made = tenant.create(id, metadata=body.metadata or {}, user=body.user)
    except AlreadyExists:  # by an earlier request with the same key, which may have been cut off just here
        made = tenant.read(id, last=1)
        items = () if made.items else items
    if items:
        try:
            _append(tenant, made.id, items)
        except BaseException:
            tenant.delete(made.id)
            raise
    return _shown(made)


def _append(tenant: Tenant, id: str, items: Sequence[Named]) -> tuple[Item, ...]:
    return tenant.append(id, [one.message for one in items], ids=[one.id for one in items])


def _items(tenant: Tenant, id: str, query: OrderedQuery) -> tuple[Item, ...]:
    """One more than the page has, if there are so many."""
    place = None if query.after is None else tenant.item(id, query.after).position
    if query.order == "asc":
        return tenant.read(id, after=place, first=query.limit + 1).items
    return tenant.read(id, before=place, last=query.limit + 1).items[::-1]


def _listed(items: Sequence[Item], limit: int) -> Response:
    part, more = part_of(items, None, limit)
    shown = [one for item in part for one in _shown_items(item)]
    return JSONResponse(page_of(shown, [item.id for item in part], more=more).model_dump())


def _shown_items(item: Item) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json", exclude_unset=True) for one in show(Named(item.id, item.message))]


def _shown(one: memory.Conversation) -> Conversation:
    return Conversation(id=one.id, object="conversation", created_at=int(one.created_at), metadata=dict(one.metadata))
