"""The server under load, and beside `transformers serve` on the same model in the same run.

    python benchmarks/serve.py [--size 5M] [--clients 64] [--warm-up 240] [--seconds 60] [--repeats 3]
        [--peer-clients 8]

1. Clients stream chats for some time, as many at once as asked, with lengths and settings of their own: how many
   failed (429 is no failure), the 50th and 99th percentile of the time to the first token, tokens a second, and the
   server's memory after the warm-up, at the end, and by how much it grew a minute in between (least squares). The
   warm-up is the same load, not counted: oneDNN keeps what it has made for each shape of a product, up to 1,024, and
   until that is full a larger model's server grows. Percentiles are of answers that were asked for after it.
2. A few clients ask for whole chats of 128 greedy tokens at once, of each server in turn: tokens a second together, as
   the servers' own `usage` counts them. The peer runs as it comes and with `--continuous-batching`, and the faster of
   both counts. Prints one JSON line a comparison, the headline last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from served import SIZES, Served, plume, resident, transformers, untrained

WORDS = (
    "lamp",
    "tower",
    "quay",
    "gull",
    "rope",
    "mast",
    "phare",
    "île",
    "été",
    "« bouée »",
    "oar",
    "🦉",
    "storm",
    "keel",
)
ANSWER = 128  # tokens
_START = 10  # characters compared: where a special token parts the bytes of one, the servers write it differently


@dataclass
class Load:
    """What the clients met with."""

    first: list[float] = field(default_factory=list)
    tokens: int = 0
    answers: int = 0
    busy: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)  # seconds, bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="5M")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--warm-up", type=float, default=240)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = untrained(options.size, folder)
        with plume(model, folder) as served:
            load = asyncio.run(loaded(served, options))
        report(load, options)
        compare(model, folder, options)


async def loaded(served: Served, options: argparse.Namespace) -> Load:
    """All clients at once until the time is over; what is under way then still comes to its end."""
    load, numbers = Load(), range(options.clients)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=served.url, timeout=120, limits=limits) as client:
        await streamed(client, served.model, random.Random(0), Load())  # loads the model
        begin = time.monotonic() + options.warm_up
        until = begin + options.seconds
        watching = watch(served.pid, begin, until, load)
        await asyncio.gather(
            watching, *(customer(client, served.model, number, begin, until, load) for number in numbers)
        )
    return load


async def customer(client: httpx.AsyncClient, model: str, number: int, begin: float, until: float, load: Load) -> None:
    """One after the other; what was asked before `begin` is not counted, but its faults are."""
    chance = random.Random(number)
    while (now := time.monotonic()) < until:
        counted = load if now >= begin else Load(faults=load.faults)
        try:
            await streamed(client, model, chance, counted)
        except (httpx.HTTPError, ValueError) as error:
            counted.faults[type(error).__name__] += 1


async def streamed(client: httpx.AsyncClient, model: str, chance: random.Random, load: Load) -> None:
    """One streamed chat; one that does not end as it should is a fault."""
    question = " ".join(chance.choices(WORDS, k=chance.randint(1, 60)))
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": chance.randint(8, 96),
        "temperature": chance.choice((0, 0.7, 1)),
        "seed": chance.randrange(1000),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first, last = time.monotonic(), None, ""
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code == 429:
            load.busy += 1
            await asyncio.sleep(float(answer.headers["retry-after"]))
            return
        if answer.status_code != 200:
            load.faults[str(answer.status_code)] += 1
            return
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            event = {} if line == "data: [DONE]" else json.loads(line[6:])
            if first is None and event.get("choices") and event["choices"][0]["delta"].get("content"):
                first = time.monotonic() - began
            load.tokens += (event.get("usage") or {}).get("completion_tokens", 0)
            last = "error" if "error" in event else line
    if last != "data: [DONE]":
        load.faults["cut off"] += 1
    load.answers += 1
    if first is not None:  # an answer may consist of its end alone
        load.first.append(first)


async def watch(pid: int, begin: float, until: float, load: Load) -> None:
    """While all clients are there: at the end they leave one by one."""
    await asyncio.sleep(begin - time.monotonic())
    while (now := time.monotonic()) < until:
        load.memory.append((now, resident(pid)))
        await asyncio.sleep(0.25)


def report(load: Load, options: argparse.Namespace) -> None:
    sizes, eighth = [size / 2**20 for _, size in load.memory], max(1, len(load.memory) // 8)
    slope, _ = statistics.linear_regression([at / 60 for at, _ in load.memory], sizes)
    early, late = statistics.mean(sizes[:eighth]), statistics.mean(sizes[-eighth:])
    quantiles = statistics.quantiles(load.first, n=100)
    figures = {
        "answers": ("answers", load.answers),
        "faults": ("requests", sum(load.faults.values())),
        "refused_429": ("requests", load.busy),
        "tokens_per_second": ("tokens/s", round(load.tokens / options.seconds, 1)),
        "time_to_first_token_p50": ("s", round(quantiles[49], 4)),
        "time_to_first_token_p99": ("s", round(quantiles[98], 4)),
        "memory_after_warm_up": ("MiB", round(early, 1)),
        "memory_at_the_end": ("MiB", round(late, 1)),
        "memory_growth": ("share", round(late / early - 1, 4)),
        "memory_slope": ("MiB/minute", round(slope, 2)),
    }
    name = f"serve/{options.size}/{options.clients} streams"
    for metric, (unit, value) in figures.items():
        row = {"bench": name, "metric": metric, "unit": unit, "plume": value, "peer": None, "peer_name": None}
        print(json.dumps({**row, "ratio": None, "lower_is_better": metric != "tokens_per_second", "runs": []}))
    if load.faults:
        print(json.dumps({"bench": name, "faults": load.faults}))


def compare(model: Path, folder: Path, options: argparse.Namespace) -> None:
    peers = {"transformers serve": (), "transformers serve --continuous-batching": ("--continuous-batching",)}
    rows = []
    for name, arguments in peers.items():
        runs: list[dict[str, float]] = []
        with plume(model, folder) as ours, transformers(model, folder, *arguments) as theirs:
            same = spoken(answer(ours))[:_START] == spoken(answer(theirs))[:_START]
            for _ in range(options.repeats):
                runs.append(
                    {
                        side: asyncio.run(together(served, options.peer_clients))
                        for side, served in (("plume", ours), ("peer", theirs))
                    }
                )
        rows.append(row(name, runs, same, options))
    for one in sorted(rows, key=lambda one: -one["ratio"]):
        print(json.dumps(one), flush=True)


def row(name: str, runs: list[dict[str, float]], same: bool, options: argparse.Namespace) -> dict[str, Any]:
    ours, theirs = (statistics.median(run[side] for run in runs) for side in ("plume", "peer"))
    return {
        "bench": f"serve/{options.size}/{options.peer_clients} clients",
        "metric": "tokens_per_second",
        "unit": "tokens/s",
        "plume": round(ours, 1),
        "peer": round(theirs, 1),
        "peer_name": name,
        "ratio": round(ours / theirs, 2),
        "lower_is_better": False,
        "same_start": same,
        "runs": [{side: round(value, 1) for side, value in run.items()} for run in runs],
    }


def question(served: Served, number: int) -> dict[str, Any]:
    """Long enough for some reading, and different for each client."""
    words = " ".join(random.Random(number).choices(WORDS, k=24))
    messages = [{"role": "user", "content": words}]
    return {"model": served.model, "messages": messages, "max_tokens": ANSWER, "temperature": 0}


def answer(served: Served) -> str:
    """The first client's answer; also what warms a server up."""
    found = httpx.post(f"{served.url}/v1/chat/completions", json=question(served, 0), timeout=300)
    found.raise_for_status()
    text: str = found.json()["choices"][0]["message"]["content"]
    return text


def spoken(text: str) -> str:
    """An answer without what is not said: the peer repeats the prompt and shows the names of special tokens."""
    return re.sub(r"<(\w+)>|<\|\w+\|>", "", text.rpartition("<|assistant|>")[2])


async def together(served: Served, clients: int) -> float:
    """Tokens a second of clients that ask three questions each, all at once."""
    async with httpx.AsyncClient(base_url=served.url, timeout=600) as client:

        async def one(number: int) -> int:
            tokens = 0
            for turn in range(3):
                body = question(served, 100 * number + turn)
                found = await client.post("/v1/chat/completions", json=body)
                found.raise_for_status()
                tokens += found.json()["usage"]["completion_tokens"]
            return tokens

        began = time.monotonic()
        counts = await asyncio.gather(*(one(number) for number in range(clients)))
        return sum(counts) / (time.monotonic() - began)


if __name__ == "__main__":
    main()
