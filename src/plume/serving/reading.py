"""Letting a model read many rows while it also answers: a few at a time, between the tokens of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from plume.serving.answers import on_model
from plume.serving.models import Loaded
from plume.serving.service import Service
from plume.serving.worker import TimedOut

R = TypeVar("R")
T = TypeVar("T")
_READ = 4096  # tokens read between two tokens of answers


async def read_all(
    service: Service,
    loaded: Loaded,
    rows: Sequence[R],
    work: Callable[[list[R]], Iterable[T]],
    length: Callable[[R], int],
) -> list[T]:
    """What `work` makes of each row, in their order. Rows of like length are read together. Raises ApiError, and
    TimedOut where it takes longer than answers may."""
    order = sorted(range(len(rows)), key=lambda number: length(rows[number]))
    found: dict[int, T] = {}
    try:
        async with asyncio.timeout(service.settings.request_seconds):
            while order:
                count = 1
                while count < len(order) and (count + 1) * length(rows[order[count]]) <= _READ:
                    count += 1
                batch, order = order[:count], order[count:]
                made = await on_model(loaded, partial(work, [rows[number] for number in batch]))
                found |= dict(zip(batch, made, strict=True))
    except TimeoutError:
        raise TimedOut(f"the answer took more than {service.settings.request_seconds:g} seconds") from None
    return [found[number] for number in range(len(rows))]
