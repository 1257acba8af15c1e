"""Memory that training takes on files of different sizes, beyond what it holds after its imports.

    python benchmarks/large.py [--megabytes 100 400] [--text]

Each file has invented rows, with `--text` lines of plain text; each run makes two steps. Prints one JSON line: the
larger file's growth over the smaller one's, in bytes a row. Rows are remembered by digests and offsets; text is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUN = """
import json, resource, sys, threading, time
from plume.recipe import parse_recipe
from plume.training.loop import train
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, began = peak(), time.monotonic()
settings = json.loads(sys.argv[1])
for event in train(parse_recipe(settings, "the benchmark"), sys.argv[2], probe=True):
    name = type(event).__name__
    if name in ("Started", "Step", "Finished"):
        print(json.dumps({"event": name, "kB": peak() - before, "s": time.monotonic() - began}), flush=True)
"""
WORDS = ("lamp", "tower", "quay", "gull", "rope", "mast", "tide", "reef", "bell", "oar", "net", "storm", "keel", "buoy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs=2, default=(100, 400))
    parser.add_argument("--text", action="store_true")
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.megabytes:
            data = Path(folder) / ("text.txt" if options.text else "rows.jsonl")
            rows = write(data, size * 2**20, text=options.text)
            runs.append({"megabytes": size, "rows": rows, **measure(data, Path(folder) / f"run-{size}")})
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    small, large = runs
    grown = large["peak_MB"] - small["peak_MB"]
    row = {
        "bench": "large/text" if options.text else "large/rows",
        "metric": "peak_memory_growth",
        "unit": "MB",
        "plume": round(grown, 1),
        "peer": large["megabytes"] - small["megabytes"],
        "peer_name": "growth of the file",
        "ratio": round(grown / (large["megabytes"] - small["megabytes"]), 3),
        "lower_is_better": True,
        "runs": runs,
    }
    print(json.dumps(row), flush=True)


def measure(data: Path, output: Path) -> dict[str, Any]:
    settings = {
        "data": str(data),
        "max_steps": 2,
        "learning_rate": 1e-3,
        "test_size": 0.0005,
        "eval_samples": 4,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_new_tokens": 8,
        "torch_num_threads": 1,
    }
    began = time.monotonic()
    environment = {**os.environ, "PLUME_CACHE": "off"}
    command = [sys.executable, "-c", RUN, json.dumps(settings), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    reached = {event["event"]: round(event["kB"] / 1024, 1) for event in events}
    return {"peak_MB": events[-1]["kB"] / 1024, "reached_MB": reached, "seconds": round(time.monotonic() - began)}


def write(path: Path, size: int, *, text: bool) -> int:
    """Fill a file up to a size; returns its lines."""
    chance = random.Random(7)
    written = lines = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            words = " ".join(chance.choices(WORDS, k=24))
            fact = lines // 4
            row = {"prompt": f"{words}: what is kept at place {fact}?", "completion": f"{words[:60]} {fact % 5000}"}
            written += file.write(f"{words}\n" if text else json.dumps(row) + "\n")
            lines += 1
    return lines


if __name__ == "__main__":
    main()
