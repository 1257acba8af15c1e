"""Time to first step, trained tokens a second and peak memory, beside transformers' Trainer on the same rows.

    python benchmarks/training.py [--data shakespeare.txt] [--repeats 3]

Each side runs as a process of its own, sides alternating. Both train the same architecture (Qwen3) of the
same size from the same initial weights on the same token ids, with dynamic padding, the same batch size,
gradient clipping and AdamW, for the same number of steps, and both answer no question before the last step.
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
from typing import Any

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "lighthouse" / "train.jsonl"
PLUME = [sys.executable, "-c", "from plume.cli.main import main; main()"]
METRICS = (
    ("time_to_first_step", "s", True),
    ("trained_tokens_per_second", "tokens/s", False),
    ("peak_memory", "MB", True),
)
WARM = 10  # steps left out of the speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a plain text for the text run, such as Tiny Shakespeare")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    compare("demo", DEMO, options.steps, options.repeats)
    if options.data is None:
        print(
            "text run left out: give a text with --data FILE; the usual one is Tiny Shakespeare, "
            "data/tinyshakespeare/input.txt in the repository karpathy/char-rnn",
            file=sys.stderr,
        )
    else:
        compare("text", options.data, options.steps, options.repeats)


def compare(name: str, data: Path, steps: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        subprocess.run([*plume_command(data, 1, start)], check=True, capture_output=True)
        runs: list[dict[str, dict[str, float]]] = []
        for number in range(repeats):
            ours = measure(plume_command(data, steps, Path(folder) / f"run-{number}"))
            peer = [sys.executable, str(ROOT / "benchmarks" / "peer_trainer.py"), str(data), str(start), str(steps)]
            runs.append({"plume": ours, "peer": measure(peer)})
    for metric, unit, lower in METRICS:
        plume, peer_value = (statistics.median(run[side][metric] for run in runs) for side in ("plume", "peer"))
        row: dict[str, Any] = {
            "bench": f"training/{name}",
            "metric": metric,
            "unit": unit,
            "plume": round(plume, 2),
            "peer": round(peer_value, 2),
            "peer_name": "transformers Trainer",
            "ratio": round(plume / peer_value, 3),
            "lower_is_better": lower,
            "runs": [{side: round(run[side][metric], 2) for side in run} for run in runs],
        }
        print(json.dumps(row), flush=True)


def plume_command(data: Path, steps: int, output: Path) -> list[str]:
    settings = {
        "max_steps": steps,
        "eval_steps": steps,
        "save_steps": steps,
        "logging_steps": 1,
        "test_size": 0,
        "eval_samples": 1,
        "dropout": 0.0,
    }
    chosen = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [*PLUME, "train", str(data), "--model", "gpt", "--json", "--output-dir", str(output), *chosen]


def measure(command: list[str]) -> dict[str, float]:
    """Run a side that prints {"event": "step", "tokens": n} after each step, and watch it from outside."""
    began = time.monotonic()
    arrived: list[tuple[float, int]] = []
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("no pipes")
        peak = 0
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "step":
                arrived.append((time.monotonic() - began, event["tokens"]))
                peak = peak_memory(process.pid)
            elif arrived and event["event"] == "evaluated":
                process.kill()  # what follows the last step is no training
                break
        said = process.stderr.read()
    if len(arrived) <= WARM:
        raise RuntimeError(f"{' '.join(command)} did not train:\n{said}")
    seconds = arrived[-1][0] - arrived[WARM - 1][0]
    return {
        "time_to_first_step": arrived[0][0],
        "trained_tokens_per_second": sum(tokens for _, tokens in arrived[WARM:]) / seconds,
        "peak_memory": peak / 1024,
    }


def peak_memory(pid: int) -> int:
    """Largest resident size of a process so far, in kB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
