"""What the columns of a row say."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Row

from plume.memory.records import seconds


def is_row(table: Any, **values: Any) -> list[Any]:
    return [table.c[name] == value for name, value in values.items()]


class Locked(NamedTuple):
    """What a writer learns of the conversation that it has locked, and the time."""

    head: int
    created_at: int
    updated_at: int
    expires_at: int | None
    body: bytes
    name: bytes | None
    now: int

    @property
    def user(self) -> str | None:
        return None if self.name is None else self.name.decode("utf-8")

    @property
    def fields(self) -> dict[str, Any]:
        """Of the conversation but its id."""
        shown = ("head", "created_at", "updated_at", "expires_at", "body", "user")
        return {name: getattr(self, name) for name in shown}


def visible(row: Locked | Row[Any]) -> bool:
    return row.expires_at is None or row.expires_at > row.now


def fields(row: Row[Any]) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in ("tenant", "now")}


def shown_item(row: Any) -> tuple[int, str, int, bytes]:
    return row.position, row.id, row.created_at, row.body


def times_of(values: dict[str, Any]) -> dict[str, Any]:
    ends = values.pop("expires_at")
    times = {name: seconds(values.pop(name)) for name in ("created_at", "updated_at")}
    return {**times, "expires_at": None if ends is None else seconds(ends)}
