"""Two processes on two cores beside one process on one: tokens a second, and whether the losses are the same.

    python benchmarks/processes.py [--runs 3] [--steps 30]

Both sides train the same gpt on the demo's rows with the same 64 rows a step and one thread a process; the two talk
through gloo. The first three steps are left out of the speed. Prints one JSON line a comparison; medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "examples" / "lighthouse" / "train.jsonl"
ROWS, LEFT_OUT = 64, 3
SETTINGS = {"torch_num_threads": 1, "dropout": 0.0, "logging_steps": 1, "eval_samples": 1, "optim": "adamw"}
SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    runs: list[dict[str, float]] = []
    apart = 0.0
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            one, two = (trained(processes, options.steps, Path(folder)) for processes in (1, 2))
        apart = max(apart, *(abs(a - b) for a, b in zip(losses(one), losses(two), strict=True)))
        runs.append({"plume": speed(two), "peer": speed(one)})
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    report("largest_difference_of_losses", "nats", apart, 0.0, None, True, [])
    ours, theirs = (statistics.median(run[side] for run in runs) for side in ("plume", "peer"))
    report("tokens_per_second", "tokens/s", ours, theirs, round(ours / theirs, 3), False, runs)


def trained(processes: int, steps: int, folder: Path) -> list[dict[str, Any]]:
    """The step events of a run of so many processes."""
    settings = {
        **SETTINGS,
        **SIZES,
        "max_steps": steps,
        "eval_steps": steps,
        "per_device_train_batch_size": ROWS // processes,
    }
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    path = folder / f"run-{processes}"
    command = [
        sys.executable,
        *launcher,
        "-m",
        "plume",
        "train",
        str(DATA),
        "--output-dir",
        str(path),
        "--json",
        *pairs,
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [event for event in events if event["event"] == "step"]


def losses(events: list[dict[str, Any]]) -> list[float]:
    return [float(event["loss"]) for event in events]


def speed(events: list[dict[str, Any]]) -> float:
    """Trained tokens a second of the steps, those of all processes together."""
    counted = events[LEFT_OUT:]
    tokens, seconds = (sum(float(event[key]) for event in counted) for key in ("tokens", "seconds"))
    return round(tokens / seconds, 1)


def report(
    metric: str, unit: str, ours: float, theirs: float, ratio: float | None, lower: bool, runs: list[dict[str, float]]
) -> None:
    row = {"bench": "processes", "metric": metric, "unit": unit, "plume": ours, "peer": theirs}
    row |= {"peer_name": "one process, one thread", "ratio": ratio, "lower_is_better": lower, "runs": runs}
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
