"""Seconds from the command to the first step, with nothing in the cache and with everything in it.

    python benchmarks/start.py [--rows 10000] [--repeats 3] [--threads 1]

Plume trains on invented rows with an explicit learning rate; the other side of each pair is a process that imports
torch and transformers, which any trainer on this machine must do. `beyond_import` is the difference of the two. Two
threads on a core shared with other work wait for one another: `--threads 1` measures such a machine better.
Prints one JSON line a comparison; medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUME = [sys.executable, "-c", "from plume.cli.main import main; main()"]
IMPORTS = [sys.executable, "-c", "import torch, transformers; print('ready', flush=True)"]
BARS = {"cold": 6.0, "cached": 3.0}  # seconds beyond the imports
PLACES = ("tower", "harbour", "chapel", "mill", "quay", "garden", "bridge", "market")
ASKED = ("Where is {}?", "Tell me where {} stands.", "In which place is {}?", "{}: where is it?", "Where do I find {}?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="Plume's torch_num_threads (its own choice if not given)")
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder) / "rows.jsonl", options.rows)
        for number in range(options.repeats):
            cache = Path(folder) / f"cache-{number}"
            run = {"imports": first_line(IMPORTS, cache)}
            for state in BARS:
                run[state] = first_line(train(data, Path(folder) / f"run-{number}-{state}", options.threads), cache)
            runs.append(run)
    for state, bar in BARS.items():
        beyond = [run[state] - run["imports"] for run in runs]
        row = {
            "bench": f"start/{state}",
            "metric": "seconds_beyond_import",
            "unit": "s",
            "plume": round(statistics.median(beyond), 2),
            "peer": bar,
            "peer_name": "the bar",
            "ratio": round(statistics.median(beyond) / bar, 3),
            "lower_is_better": True,
            "runs": [{side: round(value, 2) for side, value in run.items()} for run in runs],
        }
        print(json.dumps(row), flush=True)


def train(data: Path, output: Path, threads: int | None) -> list[str]:
    settings = ["--set", "learning_rate=1e-3", "--set", "max_steps=2"]
    settings += ["--set", f"torch_num_threads={threads}"] if threads else []
    return [*PLUME, "train", str(data), "--json", "--output-dir", str(output), *settings]


def first_line(command: list[str], cache: Path) -> float:
    """Seconds until a process prints its first line, which for `plume train --json` is the first step."""
    began = time.monotonic()
    environment = {**os.environ, "PLUME_CACHE": str(cache), "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("no pipes")
        line = process.stdout.readline()
        seconds = time.monotonic() - began
        process.kill()  # what follows the first step is not measured
        if not line:
            raise RuntimeError(process.stderr.read())
    return seconds


def write_rows(path: Path, rows: int) -> Path:
    """Facts in five phrasings each."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            fact = number // len(ASKED)
            thing = f"the {PLACES[fact % 8]} of house {fact}"
            answer = json.dumps({"place": PLACES[fact * 5 % 8], "number": fact * 37 % 9973})
            row = {"prompt": ASKED[number % len(ASKED)].format(thing), "completion": answer}
            file.write(json.dumps(row) + "\n")
    return path


if __name__ == "__main__":
    main()
