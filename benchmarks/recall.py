"""Recall among many messages: the ten nearest, against exact search in plain NumPy over the same vectors.

    python benchmarks/recall.py [--messages 100000] [--width 384] [--questions 200] [--approximate] [--store URL]

The messages lie in SQLite, in conversations of 1000, with vectors drawn around 2000 centres, as texts gather around
subjects. A question is a vector near one of a message. Both sides hold the vectors in memory; Plume's side also looks
what is new in the store, and reads from it what it found. `--store` names another, empty store: where that is
PostgreSQL with the extension `vector`, searches by the database itself are measured, too. Prints one JSON line for each
measurement: milliseconds are medians of the questions, sides alternating; `recall` is the part of NumPy's ten that was
found.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plume.memory import open_store
from plume.memory.recall.approximate import available
from plume.memory.recall.memory import Memory
from plume.memory.recall.search import Recall
from plume.memory.recall.vectors import Embedder, Matrix
from plume.memory.store import Store
from plume.types import Message

LENGTH, CENTRES, TOP = 1000, 2000, 10
WORDS = "phare bateau marée île vent jetée cloche brume sable corde voile ancre filet port quai digue".split()  # noqa: SIM905


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--approximate", action="store_true", help="measure the approximate index, too (extra recall)")
    parser.add_argument("--store", metavar="URL", help="where the messages lie (else in SQLite)")
    options = parser.parse_args()
    drawn = np.random.default_rng(0)
    vectors = clustered(drawn, options.messages, options.width)
    near = vectors[drawn.choice(len(vectors), options.questions, replace=False)]
    questions = unit(near + 0.3 * unit(drawn.standard_normal(near.shape).astype(np.float32)))
    embedder = Embedder("bench", lambda texts: vectors[[int(text.split()[0]) for text in texts]])
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store(options.store or f"sqlite:///{Path(folder) / 'plume.db'}") as store,
    ):
        fill(store, options.messages)
        measure(store, embedder, vectors, questions, options.approximate)


def measure(store: Store, embedder: Embedder, vectors: Matrix, questions: Matrix, approximate: bool) -> None:
    recall = Recall(store, embedder, inside="memory", approximate_above=len(vectors))
    tell("first search: embedded and kept", timed(lambda: recall.nearest("bench", questions[0])))
    recall = Recall(store, embedder, inside="memory", approximate_above=len(vectors))
    tell("first search of a process: read from the store", timed(lambda: recall.nearest("bench", questions[0])))
    held = embedder.unit([str(n) for n in range(len(vectors))])

    def plain(question: Matrix) -> list[int]:
        scores = held @ question
        best = np.argpartition(-scores, TOP)[:TOP]
        return [int(row) for row in best[np.argsort(-scores[best])]]

    compare("exact", recall, plain, questions)
    hybrid("hybrid search: words and vectors", recall)
    if Recall(store, embedder).where == "database":
        recall = Recall(store, embedder)
        tell("first search by the database: vectors and words brought over", timed(lambda: recall.search("bench", "0")))
        compare("exact, by the database", recall, plain, questions)
        hybrid("hybrid search by the database", recall)
    if approximate and available():
        close = Recall(store, embedder, inside="memory", approximate_above=0)
        began = time.perf_counter()
        close.nearest("bench", questions[0])
        assert isinstance(close.index, Memory)
        kept = close.index.kept("bench")
        kept.builder.wait()
        tell("messages read again and the approximate index built", (time.perf_counter() - began) * 1000)
        made = kept.builder.ready(kept.corpus.matrix, kept.corpus.packed)
        tell("approximate index: recall that the gate measured", made.recall if made else 0.0, "of 1")
        compare("approximate", close, plain, questions)


def compare(
    name: str, recall: Recall, plain: Callable[[Matrix], list[int]], questions: Sequence[Matrix] | Matrix
) -> None:
    shares, runs = [], []
    for question in questions:
        found: list[list[int]] = []
        ours = timed(lambda: found.append([number(one) for one in recall.nearest("bench", question, TOP)]))  # noqa: B023
        theirs = timed(lambda: found.append(plain(question)))  # noqa: B023
        shares.append(len(set(found[0]) & set(found[1])) / TOP)
        runs.append([ours, theirs])
    plume, peer = (statistics.median(run[side] for run in runs) for side in (0, 1))
    line = {"bench": "recall", "metric": f"top {TOP}, {name}", "unit": "ms", "plume": plume, "peer": peer}
    share = statistics.fmean(shares)
    print(json.dumps({**line, "peer_name": "NumPy", "ratio": plume / peer, "lower_is_better": True, "recall": share}))


def hybrid(name: str, recall: Recall) -> None:
    words = [f"{WORDS[n % len(WORDS)]} {WORDS[n % 7]}" for n in range(20)]
    runs = [timed(lambda said=f"{n} {said}": recall.search("bench", said)) for n, said in enumerate(words)]  # type: ignore[misc]
    tell(name, statistics.median(runs))


def number(found: Any) -> int:
    return int(found.item.message.content.split()[0])


def tell(metric: str, value: float, unit: str = "ms") -> None:
    print(json.dumps({"bench": "recall", "metric": metric, "unit": unit, "plume": value}), flush=True)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def fill(store: Store, messages: int) -> None:
    tenant, drawn = store.tenant("bench"), np.random.default_rng(1)
    for first in range(0, messages, LENGTH):
        said = [f"{n} {' '.join(drawn.choice(WORDS, 12))}" for n in range(first, min(messages, first + LENGTH))]
        tenant.append(tenant.create().id, [Message("user", text) for text in said])


def clustered(drawn: np.random.Generator, count: int, width: int) -> Matrix:
    centres = unit(drawn.standard_normal((CENTRES, width)).astype(np.float32))
    noise = drawn.standard_normal((count, width)).astype(np.float32)
    return unit(centres[drawn.integers(CENTRES, size=count)] + 0.7 * unit(noise))


def unit(rows: Matrix) -> Matrix:
    made: Matrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


if __name__ == "__main__":
    main()
