"""A vector lies beside its message, goes where it goes, and belongs to nobody else."""

from __future__ import annotations

from collections.abc import Callable

from plume.errors import NotFound
from plume.memory.conformance.examples import refusal, said
from plume.memory.store import Clock, Store, Tenant, new_id

RAW = bytes(range(256))


def test_vectors_come_back_as_they_were_and_change_nothing_else(tenant: Tenant) -> None:
    id = tenant.create().id
    tenant.append(id, said("a", "b", "c"))
    before = tenant.read(id)
    assert tenant.vectors(id) == {}
    tenant.index(before, {2: RAW, 0: b"\0", 7: b"nobody"})
    assert list(tenant.vectors(id).items()) == [(0, b"\0"), (2, RAW)]
    assert tenant.vectors(id, after=0) == {2: RAW}
    assert tenant.vectors(id, after=2) == {}
    tenant.index(before, {0: b"anew"})
    assert tenant.vectors(id) == {0: b"anew", 2: RAW}
    tenant.index(before, {})
    assert tenant.read(id) == before


def test_many_vectors_at_once(tenant: Tenant) -> None:
    id = tenant.create().id
    tenant.append(id, said(*map(str, range(1200))))
    vectors = {place: RAW + bytes([place % 256]) for place in range(1200)}
    tenant.index(tenant.read(id, last=0), vectors)
    assert tenant.vectors(id) == vectors


def test_a_vector_goes_with_its_message(tenant: Tenant) -> None:
    id = tenant.create("lundi").id
    items = tenant.append(id, said("a", "b"))
    old = tenant.read(id)
    tenant.index(old, {0: RAW, 1: RAW})
    tenant.remove(id, [items[0].id])
    tenant.index(old, {0: RAW})
    assert tenant.vectors(id) == {1: RAW}
    tenant.delete(id)
    for call in (lambda: tenant.vectors(id), lambda: tenant.index(old, {1: RAW})):
        assert refusal(call)[0] is NotFound
    tenant.create("lundi")
    tenant.append(id, said("x", "y"))
    assert tenant.vectors(id) == {}
    assert refusal(lambda: tenant.index(old, {1: RAW}))[0] is NotFound
    assert tenant.vectors(id) == {}


def test_vectors_of_another_tenant_and_of_what_has_expired_are_not_found(timed: Callable[[Clock], Store]) -> None:
    now = 1e9
    store = timed(lambda: now)
    alice, bob = (store.tenant(new_id("tenant")) for _ in range(2))
    id = alice.create(ttl=10).id
    alice.append(id, said("a"))
    made = alice.read(id)
    alice.index(made, {0: RAW})
    for call in (lambda: bob.vectors(id), lambda: bob.index(made, {0: b""})):
        assert refusal(call) == refusal(lambda: bob.read(id))
    now += 10
    for call in (lambda: alice.vectors(id), lambda: alice.index(made, {0: b""})):
        assert refusal(call)[0] is NotFound
