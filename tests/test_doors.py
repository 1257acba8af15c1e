"""A store behind the door that redacts keeps every promise of a store, also when that one is sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from plume.memory import open_store
from plume.memory.conformance.conftest import persistent, tenant  # noqa: F401
from plume.memory.conformance.test_lifetime import *  # noqa: F403
from plume.memory.conformance.test_tenants import *  # noqa: F403
from plume.memory.conformance.test_values import *  # noqa: F403
from plume.memory.conformance.test_vectors import *  # noqa: F403
from plume.memory.redacting import RedactingStore
from plume.memory.sealing.master import MasterKey, master_key
from plume.memory.store import Clock, Store
from plume.redact import Redaction

VAULT_KEY = bytes(range(32))
MASTER = master_key(bytes([3]) * 32)


@pytest.fixture(scope="session", params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "memory":
        return "memory:"
    return f"sqlite:///{tmp_path_factory.mktemp('door') / 'plume.db'}"


@pytest.fixture(scope="session")
def keys() -> tuple[MasterKey, ...]:
    return (MASTER,)


def door(url: str, keys: Sequence[MasterKey], clock: Clock | None = None) -> Store:
    return RedactingStore(open_store(url, clock=clock, keys=keys), Redaction(), VAULT_KEY)


@pytest.fixture(scope="session")
def store(url: str, keys: tuple[MasterKey, ...]) -> Iterator[Store]:
    with door(url, keys) as opened:
        yield opened


@pytest.fixture
def timed(url: str, store: Store, keys: tuple[MasterKey, ...]) -> Iterator[Callable[[Clock], Store]]:  # noqa: ARG001
    opened: list[Store] = []

    def again(clock: Clock) -> Store:
        opened.append(door(url, keys, clock))
        return opened[-1]

    yield again
    for one in opened:
        one.close()
