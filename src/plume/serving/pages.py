"""Lists that come a page at a time, the cursor being the id of the last thing seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Generic, Literal, Protocol, TypeVar

from fastapi import Request
from pydantic import BaseModel

from plume.serving.errors import invalid, unsupported


class Identified(Protocol):
    @property
    def id(self) -> str: ...


I = TypeVar("I", bound=Identified)  # noqa: E741 - an item
W = TypeVar("W")


class Page(BaseModel, Generic[W]):
    object: Literal["list"] = "list"
    data: list[W]
    first_id: str | None
    last_id: str | None
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
    return Page(data=list(data), first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=more)


def refuse_other_parameters(request: Request, known: Collection[str]) -> None:
    """Raises ApiError for a query that would not be honoured."""
    for name in request.query_params:
        if name not in known:
            raise unsupported(name)
