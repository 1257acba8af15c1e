"""The stores under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from plume.data.sql import safe_name
from plume.errors import UserError
from plume.memory import open_store
from plume.memory.sealing.master import MasterKey, master_keys
from plume.memory.store import Clock, Store, Tenant, new_id

URLS = [url for url in os.environ.get("PLUME_TEST_STORES", "memory:").split(",") if url]


@pytest.fixture(scope="session", params=URLS, ids=safe_name)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def keys() -> tuple[MasterKey, ...]:
    """Those that the stores are sealed with, from the environment."""
    return master_keys()


@pytest.fixture(scope="session")
def store(url: str, keys: tuple[MasterKey, ...]) -> Iterator[Store]:
    try:
        opened = open_store(url, keys=keys)
    except UserError as error:
        if os.environ.get("PLUME_REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(error.message)
    with opened:
        yield opened


@pytest.fixture
def tenant(store: Store) -> Tenant:
    return store.tenant(new_id("tenant"))


@pytest.fixture
def persistent(url: str, store: Store) -> str:  # noqa: ARG001
    """The URL of a store that another process can open, too."""
    if url.startswith("memory:"):
        pytest.skip("a store in memory belongs to one process")
    return url


@pytest.fixture
def timed(url: str, store: Store, keys: tuple[MasterKey, ...]) -> Iterator[Callable[[Clock], Store]]:  # noqa: ARG001
    """Opens the store with another clock."""
    opened: list[Store] = []

    def again(clock: Clock) -> Store:
        opened.append(open_store(url, clock=clock, keys=keys))
        return opened[-1]

    yield again
    for one in opened:
        one.close()
