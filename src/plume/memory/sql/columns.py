"""What the columns of a row say."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from plume.memory.records import seconds


def is_row(table: Any, **values: Any) -> list[Any]:
    return [table.c[name] == value for name, value in values.items()]


def visible(row: Row[Any]) -> bool:
    return row.expires_at is None or row.expires_at > row.now


def fields(row: Row[Any]) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in ("tenant", "now")}


def shown_item(row: Any) -> tuple[int, str, int, bytes]:
    return row.position, row.id, row.created_at, row.body


def times_of(values: dict[str, Any]) -> dict[str, Any]:
    ends = values.pop("expires_at")
    times = {name: seconds(values.pop(name)) for name in ("created_at", "updated_at")}
    return {**times, "expires_at": None if ends is None else seconds(ends)}
