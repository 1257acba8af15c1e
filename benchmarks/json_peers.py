"""The parent's side of benchmarks/peer_json.py: a library in a process that may be too slow, or die."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plume.text.tokenizer import TextTokenizer
from schema_cases import Case, Cutter, spellings

WORKER = Path(__file__).with_name("peer_json.py")
SETUP_SECONDS = 600.0


class Peer:
    """Asks one library at a time, and starts it anew where it gave no answer within `deadline` seconds."""

    def __init__(self, library: str, python: str, tokenizer: TextTokenizer, folder: Path, deadline: float) -> None:
        self._command, self._deadline = [python, str(WORKER), library], deadline
        setup = folder / f"setup-{library}.json"
        (folder / "tokenizer").mkdir(exist_ok=True)
        tokenizer.save(folder / "tokenizer")
        tokens = [tokenizer.token_bytes(id).hex() or None for id in range(tokenizer.vocab_size)]
        row = {"tokens": tokens, "stop": tokenizer.eos_id, "directory": str(folder / "tokenizer")}
        setup.write_text(json.dumps(row), encoding="utf-8")
        self._command.append(str(setup))
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, schema: Any, instances: Sequence[Sequence[int]]) -> dict[str, Any]:
        """The worker's row; one that says so where it died or took too long."""
        if self._process is None:
            self._start()
        assert self._process
        assert self._process.stdin
        failed: dict[str, Any] = {"compile": None, "accepted": [], "masks": [], "steps": []}
        try:
            self._process.stdin.write(json.dumps({"schema": schema, "instances": instances}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=self._deadline)
        except (queue.Empty, BrokenPipeError):
            self._stop()
            return failed | {"refused": f"no answer within {self._deadline:g} s"}
        if line is None:
            self._stop()
            return failed | {"refused": "the process died"}
        row: dict[str, Any] = json.loads(line)
        return row

    def _start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=environment,
        )
        self._process, self._lines = process, queue.Queue[str | None]()
        threading.Thread(target=_read, args=(process, self._lines), daemon=True).start()
        if self._lines.get(timeout=SETUP_SECONDS) is None:
            self._stop()
            sys.exit(f"{self._command[2]} does not start; see: {' '.join(self._command)}")

    def _stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def asked_of(peer: Peer, cases: Sequence[Case], tokenizer: TextTokenizer) -> Iterator[dict[str, Any]]:
    """One row a schema: `verdicts` says of the valid instances, then of the invalid ones, whether any spelling was
    accepted, None where the library broke; `masks` and `steps` are microseconds a token."""
    cut = Cutter(tokenizer)
    for case in cases:
        written = [spellings(instance) for instance in (*case.valid, *case.invalid)]
        row = peer.ask(case.schema, [cut(text) for texts in written for text in texts])
        left = iter(row.pop("accepted"))
        verdicts = []
        if row["refused"] is None:
            for texts in written:
                taken = [next(left) for _ in texts]
                verdicts.append(True if any(taken) else None if None in taken else False)
        for key in ("masks", "steps"):
            row[key] = [round(1e6 * seconds, 1) for seconds in row[key]]
        yield {"case": case.name, "family": case.family, **row, "verdicts": verdicts}
