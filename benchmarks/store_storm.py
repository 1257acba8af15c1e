"""Sixteen writers on twenty conversations, and writers killed at drawn moments: is anything lost, doubled or torn?

    python benchmarks/store_storm.py [--stores URL,URL] [--writers 16] [--turns 500] [--kills 50] [--seed 0]

Without `--stores`: memory, SQLite, and PostgreSQL, MariaDB and Redis servers that it starts itself, as the tests do.
Each turn is one append of a question and its answer, every second one at the position that its writer has read. A
writer is killed (SIGKILL) up to a quarter of a second after its first turn was acknowledged; and on new SQLite files
others are killed while they make the tables. Prints one JSON line for each store and question, the sum last; exit code
1 when there is a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import servers
from plume.data.sql import safe_name
from plume.memory import open_store, storm
from plume.memory.store import Store, new_id

SECRET = urllib.parse.quote(servers.PASSWORD, safe="")
CONVERSATIONS = 20
_SECONDS = 0.25  # within which a writer is killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", help="URLs, separated by commas")
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--turns", type=int, default=500, help="of each writer")
    parser.add_argument("--kills", type=int, default=50, help="of each store")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, total = random.Random(options.seed), 0
    with own_stores() if options.stores is None else contextlib.nullcontext(options.stores.split(",")) as urls:
        for url in urls:
            with open_store(url) as store:
                total += compete(url, store, options.writers, options.turns)
                if not url.startswith("memory:"):
                    total += kill(url, store, options.kills, chance)
            if url.startswith("sqlite:"):
                total += kill_beginners(url, options.kills, chance)
    say("all", "faults", total)
    sys.exit(total > 0)


@contextlib.contextmanager
def own_stores() -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ports = [
            stack.enter_context(start(durable=True)) for start in (servers.postgresql, servers.mariadb, servers.redis)
        ]
        yield [
            "memory:",
            f"sqlite:///{folder}/plume.db",
            f"postgresql://plume:{SECRET}@127.0.0.1:{ports[0]}/postgres",
            f"mysql://plume:{SECRET}@127.0.0.1:{ports[1]}/plume",
            f"redis://:{SECRET}@127.0.0.1:{ports[2]}/0",
        ]


def compete(url: str, store: Store, writers: int, turns: int) -> int:
    """Every writer writes all its turns at the same time as the others: processes, in memory threads."""
    tenant = store.tenant(new_id("storm"))
    ids = [tenant.create().id for _ in range(CONVERSATIONS)]
    began = time.perf_counter()
    if url.startswith("memory:"):
        acknowledged = in_threads(lambda number: in_this_process(store, tenant.name, ids, number, turns), writers)
    else:
        with contextlib.ExitStack() as stack:
            pipes = [
                stack.enter_context(storm.writer(url, tenant.name, ids, number, turns))[1] for number in range(writers)
            ]
            acknowledged = in_threads(lambda number: storm.received(pipes[number]), writers)
    seconds = time.perf_counter() - began
    wrong = storm.faults(tenant, ids, acknowledged, complete=True)
    if len(acknowledged) != writers * turns:
        wrong.append(f"{len(acknowledged)} of {writers * turns} turns were acknowledged")
    say(url, f"{writers} writers, {turns} turns each, {CONVERSATIONS} conversations", len(wrong), wrong, seconds)
    return len(wrong)


def in_this_process(store: Store, tenant: str, ids: list[str], number: int, turns: int) -> list[storm.Turn]:
    chance, mine, done = random.Random(number), store.tenant(tenant), []
    for turn in range(turns):
        id = chance.choice(ids)
        storm.append_turn(mine, id, number, turn, insists=turn % 2 == 0)
        done.append((id, number, turn))
    return done


def in_threads(work: Callable[[int], list[storm.Turn]], count: int) -> list[storm.Turn]:
    done: list[storm.Turn] = []
    threads = [threading.Thread(target=lambda number=number: done.extend(work(number))) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def kill(url: str, store: Store, kills: int, chance: random.Random) -> int:
    tenant = store.tenant(new_id("kills"))
    ids = [tenant.create().id for _ in range(CONVERSATIONS)]
    acknowledged: list[storm.Turn] = []
    began = time.perf_counter()
    for number in range(kills):
        with storm.writer(url, tenant.name, ids, number, 1_000_000) as (process, pipe):
            acknowledged.append(pipe.recv())
            process.join(chance.uniform(0, _SECONDS))
            process.kill()
            acknowledged += storm.received(pipe)
    wrong = storm.faults(tenant, ids, acknowledged, complete=False)
    question = f"{kills} writers killed, {len(acknowledged)} turns acknowledged"
    say(url, question, len(wrong), wrong, time.perf_counter() - began)
    return len(wrong)


def kill_beginners(url: str, kills: int, chance: random.Random) -> int:
    """Each on a new file, which it may just have begun to fill with tables."""
    wrong: list[str] = []
    began = time.perf_counter()
    longest = _SECONDS
    for number in range(kills + 1):
        fresh = f"{url}-{number}"
        here, there = storm.context().Pipe(duplex=False)
        process = storm.context().Process(target=begin, args=(fresh, there))
        process.start()
        here.recv()
        started = time.perf_counter()
        process.join(chance.uniform(0, longest) if number else None)
        longest = longest if number else time.perf_counter() - started
        process.kill()
        process.join()
        with open_store(fresh) as store:
            tenant = store.tenant("a")
            tenant.create("b")
            storm.append_turn(tenant, "b", number, 0, insists=True)
            wrong += storm.faults(tenant, ["b"], [("b", number, 0)], complete=True)
    say(url, f"{kills} killed while they opened a new file", len(wrong), wrong, time.perf_counter() - began)
    return len(wrong)


def begin(url: str, pipe: Connection) -> None:
    pipe.send("opening")
    open_store(url).close()


def say(url: str, question: str, faults: int, wrong: list[str] | None = None, seconds: float = 0.0) -> None:
    line = {"bench": "store_storm", "store": safe_name(url), "metric": question, "unit": "faults", "plume": faults}
    print(json.dumps({**line, "faults": (wrong or [])[:5], "seconds": round(seconds, 1)}), flush=True)


if __name__ == "__main__":
    main()
