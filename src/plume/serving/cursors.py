"""Pages of a list, as OpenAI's cursors turn them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class _Query(BaseModel):
    """A parameter that would not be honoured is refused here too."""

    model_config = ConfigDict(extra="forbid")


class PageQuery(_Query):
    """Which part of a list: at most so many, behind the one with the id `after`."""

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"


class NewestQuery(_Query):
    """Which part of a list that begins with what is newest."""

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


Page = Annotated[PageQuery, Query()]
NewestPage = Annotated[NewestQuery, Query()]
NoQuery = Annotated[_Query, Query()]


def page(found: Sequence[T], limit: int, id_of: Callable[[T], str]) -> dict[str, Any]:
    """The fields of a list of which one more than `limit` was looked for. The ids of an empty list are empty texts,
    because the client's types allow no null there."""
    data = list(found[:limit])
    first, last = (id_of(data[0]), id_of(data[-1])) if data else ("", "")
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": len(found) > limit}
