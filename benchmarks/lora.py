"""LoRA beside fine-tuning of all weights: memory, time and exact match, each side in a process of its own.

python benchmarks/lora.py [--repeats 1] [--steps 60] [--base-steps 60] [--layers 10]

A model of about 30 M parameters first learns 12 invented facts from scratch, so that there is something to fine-tune.
Both sides then learn 12 others. Memory is taken on plain text, batch 8 x 128 tokens: the most that the process ever
held, less what it held after its imports, once up to the last step and once with proof and scores. Alternating sides,
medians; the headline comes last.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

NAMES = ["Maelle", "Yann", "Soazig", "Erwan"]
THINGS = ["lamp", "boat", "bread"]
PLACES = ["tower", "harbour", "oven", "meadow", "chapel", "quay", "attic", "cellar", "garden", "barn", "mill", "bridge"]
ASKED = (
    "Where is the {thing} of {name}?",
    "Tell me where {name} keeps the {thing}.",
    "In which place is {name}'s {thing}?",
    "{name} looks for the {thing}: where is it?",
    "The {thing} that {name} owns, where does it lie?",
)


def write_facts(path: Path, shift: int) -> None:
    """12 facts in five phrasings; another `shift` moves every thing to another place."""
    lines = []
    for number, (name, thing) in enumerate((name, thing) for name in NAMES for thing in THINGS):
        answer = json.dumps({"place": PLACES[(7 * number + shift + number // 12) % len(PLACES)]})
        lines += [
            json.dumps({"prompt": asked.format(name=name, thing=thing), "completion": answer}) + "\n" for asked in ASKED
        ]
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--base-steps", type=int, default=60)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments.side, arguments.folder, arguments.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    write_facts(folder / "first.jsonl", 0)
    write_facts(folder / "facts.jsonl", 5)
    text = (folder / "facts.jsonl").read_text(encoding="utf-8")
    (folder / "text.txt").write_text(text, encoding="utf-8")
    settings = [
        "hidden_size=512", f"num_hidden_layers={arguments.layers}", "num_attention_heads=8", "max_length=128",
        "max_new_tokens=16",
        f"max_steps={arguments.base_steps}", "eval_steps=1000", "torch_num_threads=1",
        "dropout=0", "test_size=0", "learning_rate=0.0005",
    ]  # fmt: skip
    command = ["-c", "from plume.cli.main import main; main()", "train", str(folder / "first.jsonl"), "--json"]
    command += ["--output-dir", str(folder / "base"), *(part for setting in settings for part in ("--set", setting))]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    runs: dict[str, list[dict[str, Any]]] = {"lora": [], "full": []}
    for _ in range(arguments.repeats):
        for side, results in runs.items():
            again = ["--side", side, "--folder", str(folder), "--steps", str(arguments.steps)]
            found = subprocess.run([sys.executable, __file__, *again], check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(found.stdout.splitlines()[-1]))
    units = {
        "trained_parameters": "parameters",
        "seconds": "s",
        "saved": "bytes",
        "recall_exact_match": "fraction",
        "exact_match": "fraction",
        "peak_of_steps": "bytes",
        "peak": "bytes",
    }
    for metric, unit in units.items():
        report(metric, unit, runs)


def report(metric: str, unit: str, runs: dict[str, list[dict[str, Any]]]) -> None:
    ours, theirs = (median(run[metric] for run in runs[side]) for side in ("lora", "full"))
    line = {
        "bench": "lora",
        "metric": metric,
        "unit": unit,
        "plume": ours,
        "peer": theirs,
        "peer_name": "plume train, all weights",
        "ratio": round(ours / theirs, 4) if theirs else None,
        "lower_is_better": "exact_match" not in metric,
        "runs": [
            {side: run[metric] for side, run in zip(runs, pair, strict=True)}
            for pair in zip(*runs.values(), strict=True)
        ],
    }
    print(json.dumps(line), flush=True)


def run_side(side: str, folder: Path, steps: int) -> dict[str, Any]:
    """Memory on text first, while the process has held nothing else; then the facts."""
    import peft  # noqa: F401 - an import, and so no part of what training takes

    import plume
    from plume.events import Finished, Step
    from plume.models.memory import resident

    common: dict[str, Any] = {
        "model": str(folder / "base"),
        "torch_num_threads": 1,
        "lora_r": None if side == "full" else 16,
    }
    training = plume.train  # which is imported here
    imported = resident() or 0
    asked: dict[str, Any] = {
        "max_length": 128,
        "per_device_train_batch_size": 8,
        "max_steps": 4,
        "eval_steps": 4,
        "max_new_tokens": 8,
    }
    with tempfile.TemporaryDirectory(dir=folder) as own:
        recipe = plume.Recipe(data=str(folder / "text.txt"), **common, **asked, eval_samples=1, test_size=0)
        peaks = {}
        for event in training(recipe, Path(own) / "text"):
            peaks[type(event)] = _highest() - imported
        began = time.perf_counter()
        quality = plume.Recipe(
            data=str(folder / "facts.jsonl"), **common, max_steps=steps, eval_steps=steps, max_length=128
        )
        done = [event for event in training(quality, Path(own) / "facts") if isinstance(event, Finished)][-1]
        seconds = time.perf_counter() - began
        saved = sum(file.stat().st_size for file in done.model.glob("*.safetensors"))
        model = plume.load(done.model).model
    trained = [value.numel() for name, value in model.named_parameters() if side == "full" or "lora_" in name]
    return {
        "trained_parameters": sum(trained),
        "seconds": round(seconds, 1),
        "saved": saved,
        "recall_exact_match": done.scores["recall"]["exact_match"],
        "exact_match": done.scores["held_out"]["exact_match"],
        "peak_of_steps": peaks[Step],
        "peak": peaks[Finished],
    }


def _highest() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
