"""Fine-tuning on invented facts, beside TRL's SFTTrainer and a plain loop that pads to 512: time to 95 % right.

    python benchmarks/finetune.py [--runs 3] [--threads 2] [--facts 200]
    python benchmarks/finetune.py --choose [--sides plume sft] [--rows 8 16 32 64] [--threads 1]

200 facts in five phrasings each, answers in JSON; a sixth phrasing is asked, decoded greedily, every ten steps, with
the same function for every side. All start from the same random Llama (six layers of width 384) with the same
tokenizer. What counts is the time of training, evaluations left out, until 95 % of the answers are right to the
letter. Every side runs as a process of its own, sides alternating. Plume takes Muon at its usual rate for the matrices
of the layers (transformers' Trainer has none), and chooses the precision by itself; the peers take bfloat16 where the
processor has units for it. `--choose` tries the same learning rates and rows a step on either side, each until it gets
there or has taken twice the processor time of its side's best so far; the best belongs in CHOSEN. Schedules end after
`--epochs` there; CHOSEN names their steps too. A side that is stopped before it gets there counts with the time it has
had: less than it needs. The one that pads is stopped after `--naive-steps` steps.
Prints one JSON line a comparison; medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import facts
from plume.processors import bfloat16_units

FOLDER = Path(__file__).parent
RATES = (1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)
ROWS = (8, 16, 32, 64)  # in a step
LONGEST = 600.0  # seconds of processor that no side needs
SETTINGS = {"plume": ["optim=muon"]}  # beyond rate, rows and steps
CHOSEN = {"plume": (2.4e-3, 64, 40), "sft": (3e-4, 16, 400), "naive": (3e-4, 16, 400)}  # rate, rows, steps
NAMES = {"sft": "TRL SFTTrainer, packed, completions only", "naive": "plain loop, padded to 512"}

Result = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--facts", type=int, default=200)
    parser.add_argument("--naive-steps", type=int, default=60, help="Most steps of the side that pads.")
    parser.add_argument("--choose", action="store_true", help="Try every pair of rate and rows once, and stop.")
    parser.add_argument("--sides", nargs="+", choices=("plume", "sft"), default=["plume", "sft"], help="For --choose.")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="For --choose.")
    parser.add_argument("--epochs", type=float, default=4.8, help="For --choose.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        invented = facts.invent(options.facts)
        facts.write_rows(invented.train, folder / "train.jsonl")
        facts.write_rows(invented.asked, folder / "asked.jsonl")
        facts.make_start(invented, folder / "start")
        if options.choose:
            choose(folder, options)
            return
        runs = [measure(folder, options, seed) for seed in range(options.runs)]
    compare(runs, "sft", "steps", "steps")  # those of the side that pads were cut short
    for metric in ("cpu_seconds", "seconds"):
        for peer in ("naive", "sft"):
            compare(runs, peer, metric, "s")


def choose(folder: Path, options: argparse.Namespace) -> None:
    for side in options.sides:  # the side that pads takes TRL's pair: one step of it takes seconds
        best = LONGEST
        for rows in options.rows:
            steps = round(options.epochs * 5 * options.facts / rows)
            for rate in RATES:
                found = train(side, folder, (rate, rows, steps), 0, options.threads, 2 * best)
                print(json.dumps({"side": side, "rate": rate, "rows": rows, **found}), flush=True)
                best = min(best, found["cpu_seconds"]) if found["reached"] else best


def measure(folder: Path, options: argparse.Namespace, seed: int) -> dict[str, Result]:
    rate, rows, steps = CHOSEN["naive"]
    chosen = {**CHOSEN, "naive": (rate, rows, min(steps, options.naive_steps))}
    run = {side: train(side, folder, chosen[side], seed, options.threads, LONGEST) for side in chosen}
    print(json.dumps(run), file=sys.stderr, flush=True)
    if not run["plume"]["reached"]:
        raise SystemExit(f"Plume did not get {facts.TARGET:.0%} right in {CHOSEN['plume'][2]} steps")
    return run


def train(side: str, folder: Path, chosen: tuple[float, int, int], seed: int, threads: int, most: float) -> Result:
    """A side with its rate, rows and steps, until it gets there or has taken the `most` seconds of processor."""
    script = ["plume_sft.py"] if side == "plume" else ["peer_sft.py", side]
    last = SETTINGS.get(side, ["bf16" if bfloat16_units() else "float32"])
    numbers = map(str, (*chosen, seed, threads, most))
    command = [sys.executable, str(FOLDER / script[0]), *script[1:], str(folder), *numbers, *last]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(runs: list[dict[str, Result]], peer: str, metric: str, unit: str) -> None:
    ours, theirs = (statistics.median(run[side][metric] for run in runs) for side in ("plume", peer))
    row = {
        "bench": "finetune",
        "metric": f"{metric}_vs_{peer}",
        "unit": unit,
        "plume": round(ours, 2),
        "peer": round(theirs, 2),
        "peer_name": NAMES[peer],
        "ratio": round(ours / theirs, 3),
        "lower_is_better": True,
        "runs": [{"plume": run["plume"][metric], "peer": run[peer][metric]} for run in runs],
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
