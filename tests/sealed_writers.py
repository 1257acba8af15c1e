"""Processes that read, write and rotate while a test kills one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from plume.errors import PlumeError
from plume.memory import open_store, storm
from plume.memory.sealing.master import MasterKey
from plume.memory.sealing.rotation import rotate


@contextmanager
def process(work: Any, *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """`work(*arguments, pipe)` in a process of its own, which is killed when it is left."""
    here, there = storm.context().Pipe()
    running = storm.context().Process(target=work, args=(*arguments, there))
    running.start()
    there.close()
    try:
        yield running, here
    finally:
        running.kill()
        running.join()
        here.close()


def rotate_all(url: str, keys: Sequence[MasterKey], pipe: Connection) -> None:
    with open_store(url, keys=keys) as store:
        pipe.send("open")
        for step in rotate(store, "test", keys):
            pipe.send(repr(step))


def read_on(url: str, keys: Sequence[MasterKey], tenant: str, ids: Sequence[str], pipe: Connection) -> None:
    """Reads everything again and again until it is told to stop; then says how often, and what went wrong."""
    rounds, wrong = 0, []
    with open_store(url, keys=keys) as store:
        mine = store.tenant(tenant)
        while not pipe.poll():
            try:
                for id in ids:
                    conversation = mine.read(id)
                    if [item.position for item in conversation.items] != list(range(conversation.head)):
                        wrong.append(f"{id}: not whole")
                    mine.get("note", id)
                mine.conversations()
            except PlumeError as error:
                wrong.append(str(error))
            rounds += 1
            if rounds == 1:
                pipe.send("reading")
    pipe.send((rounds, wrong))


def create_one(url: str, keys: Sequence[MasterKey], tenant: str, user: str, pipe: Connection) -> None:
    """Waits until it is told, with the store open, and then is one of several that need a first key."""
    with open_store(url, keys=keys) as store:
        pipe.send("open")
        pipe.recv()
        pipe.send(store.tenant(tenant).create(user=user).id)
