"""The stores: the published suite on all five against real servers, and what belongs to one store alone."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Callable, Iterator

import pytest

import servers
from plume.memory.conformance.conftest import persistent, store, tenant, timed  # noqa: F401
from plume.memory.conformance.test_tenants import *  # noqa: F403
from plume.memory.conformance.test_values import *  # noqa: F403
from plume.memory.conformance.test_writers import *  # noqa: F403

SECRET = urllib.parse.quote(servers.PASSWORD, safe="")
SERVERS: dict[str, tuple[Callable[..., contextlib.AbstractContextManager[int]], str]] = {
    "postgresql": (servers.postgresql, f"postgresql://plume:{SECRET}@127.0.0.1:{{}}/postgres"),
    "mysql": (servers.mariadb, f"mysql://plume:{SECRET}@127.0.0.1:{{}}/plume"),
    "redis": (servers.redis, f"redis://:{SECRET}@127.0.0.1:{{}}/0"),
}


@pytest.fixture(scope="session", params=["memory", "sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One row a store."""
    if request.param == "memory":
        yield "memory:"
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('store') / 'plume.db'}"
    else:
        start, address = SERVERS[request.param]
        with start(durable=True) as port:
            yield address.format(port)
