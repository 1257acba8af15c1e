"""Lists that come a page at a time, as OpenAI's cursors turn them: the cursor is the id of the last thing seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Generic, Literal, Protocol, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from plume.serving.errors import invalid


class Identified(Protocol):
    @property
    def id(self) -> str: ...


I = TypeVar("I", bound=Identified)  # noqa: E741 - an item
W = TypeVar("W")


class AnyQuery(BaseModel):
    """A parameter that would not be honoured is refused here too."""

    model_config = ConfigDict(extra="forbid")


class NewestQuery(AnyQuery):
    """Which part of a list that begins with what is newest: at most so many, behind the one with the id `after`."""

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class OrderedQuery(NewestQuery):
    order: Literal["asc", "desc"] = "desc"


NoQuery = Annotated[AnyQuery, Query()]
Newest = Annotated[NewestQuery, Query()]
Ordered = Annotated[OrderedQuery, Query()]


class Page(BaseModel, Generic[W]):
    """The ids of an empty list are empty texts, because the types of some clients allow no null there."""

    object: Literal["list"] = "list"
    data: list[W]
    first_id: str
    last_id: str
    has_more: bool


def part_of(items: Sequence[I], after: str | None, limit: int) -> tuple[Sequence[I], bool]:
    """The items behind a cursor, and whether there are more. Raises ApiError for a cursor that is none of them."""
    start = 0
    if after is not None:
        start = next((place for place, item in enumerate(items, 1) if item.id == after), -1)
        if start < 0:
            raise invalid("after", f"after: {after!r} is none of these")
    return items[start : start + limit], len(items) > start + limit


def page_of(data: Sequence[W], ids: Sequence[str], *, more: bool) -> Page[W]:
    return Page(data=list(data), first_id=ids[0] if ids else "", last_id=ids[-1] if ids else "", has_more=more)
