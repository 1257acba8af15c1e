"""An approximate index over many vectors (HNSW, by usearch), built beside the searches and used only when measured to
be good: of what an exact search finds, it must find 95 % of a sample. Otherwise searches stay exact."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plume.memory.recall.vectors import Matrix

GATE = 0.95
TOP = 10
_SAMPLE = 100
_EXPANSIONS = (64, 128, 256, 512)  # how widely a search looks around; the first that passes the gate is taken
_SLACK = 4  # times as many as are wanted: some may be gone meanwhile
Rows = npt.NDArray[np.int64]
log = logging.getLogger("plume.memory")


@dataclass(frozen=True, slots=True)
class Approximate:
    """Of the first `rows` rows of a matrix. `recall` is what the gate measured."""

    index: Any
    rows: int
    recall: float

    def nearest(self, question: Matrix, count: int) -> Rows:
        """The best first."""
        found = self.index.search(question, min(self.rows, _SLACK * count))
        return np.asarray(found.keys, np.int64)


def available() -> bool:
    try:
        import usearch.index  # noqa: F401
    except ImportError:
        return False
    return True


def build(matrix: Matrix) -> Approximate | None:
    """None where no setting finds enough."""
    from usearch.index import Index

    index: Any = Index(ndim=matrix.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=64)
    index.add(np.arange(len(matrix), dtype=np.uint64), matrix, threads=1)
    sample = matrix[np.random.default_rng(0).choice(len(matrix), min(_SAMPLE, len(matrix)), replace=False)]
    wanted = [set(exact(matrix, row, TOP).tolist()) for row in sample]
    for expansion in _EXPANSIONS:
        index.expansion_search = expansion
        made = Approximate(index, len(matrix), 0.0)
        found = [set(made.nearest(row, TOP)[:TOP].tolist()) for row in sample]
        recall = float(np.mean([len(one & all) / len(all) for one, all in zip(found, wanted, strict=True)]))
        if recall >= GATE:
            log.info("an index of %d vectors finds %.1f %% of a sample", len(matrix), 100 * recall)
            return Approximate(index, len(matrix), recall)
    log.warning("an index of %d vectors finds %.1f %% of a sample: searches stay exact", len(matrix), 100 * recall)
    return None


def exact(matrix: Matrix, question: Matrix, count: int, without: Rows | tuple[()] = ()) -> Rows:
    """The best first; of equals the earlier. Rows to leave out come last, if at all."""
    scores = matrix @ question
    scores[list(without)] = -np.inf
    chosen = np.argpartition(-scores, count)[:count] if count < len(scores) else np.arange(len(scores))
    return chosen[np.lexsort((chosen, -scores[chosen]))].astype(np.int64)


class Builder:
    """Builds in a thread of its own; until it is done, searches are exact."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._made: Approximate | None = None
        self._for = (0, 0)  # the packing of the matrix that it belongs to, and its rows

    def ready(self, matrix: Matrix, packed: int) -> Approximate | None:
        """The index, if there is one that fits; one is begun where there is none, or a quarter of the rows are new."""
        fits = self._for[0] == packed and 4 * (len(matrix) - self._for[1]) <= len(matrix)
        if self._thread is not None and self._thread.is_alive():
            return self._made if fits else None
        if not fits:
            self._for, self._made = (packed, len(matrix)), None
            self._thread = threading.Thread(target=self._build, args=(matrix.copy(),), daemon=True)
            self._thread.start()
        return self._made

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _build(self, matrix: Matrix) -> None:
        self._made = build(matrix)
