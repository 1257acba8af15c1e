"""Runs killed at drawn moments, resumed, and compared byte by byte with a run that nobody killed.

    python benchmarks/kills.py [--kills 100] [--seed 0] [--jobs 2] [--threads 2]

Every combination of options below is trained once to its end. Then a run of it is killed (SIGKILL) at a moment drawn
evenly over the whole length of that first run, from the start of the process to its last write, and resumed to its end;
every file of the model directory must be the same. Prints one JSON line; exit code 1 when a run ended differently.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "examples" / "lighthouse"
ROWS, POEM = 48, 400
SMALL = {
    "max_steps": 24,
    "eval_steps": 8,
    "save_steps": 5,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "eval_samples": 4,
    "max_new_tokens": 8,
    "dropout": 0.1,
}
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "dropout")


def combinations(rows: Path, text: Path, base: Path) -> dict[str, dict[str, Any]]:
    """By name, the recipe keys beside SMALL; a `base` brings its own sizes."""
    tuned = {"data": str(rows), "model": str(base)}
    return {
        "gpt": {"data": str(rows), "packing": False},
        "gpt, muon, accumulation": {"data": str(rows), "optim": "muon", "gradient_accumulation_steps": 2},
        "gpt, packed, checkpointed": {"data": str(rows), "packing": True, "gradient_checkpointing": True},
        "gpt, rate searched, patience": {"data": str(rows), "learning_rate": "auto", "early_stopping_patience": 2},
        "gpt, text, muon": {"data": str(text), "max_length": 32},
        "gpt, bf16": {"data": str(rows), "bf16": True},
        "gru": {"data": str(rows), "model": "gru"},
        "gru, text": {"data": str(text), "model": "gru", "max_length": 32},
        "bigram": {"data": str(text), "model": "bigram", "max_length": 32},
        "tuned": tuned,
        "tuned, packed, muon": {**tuned, "packing": True, "optim": "muon"},
        "tuned, replay": {**tuned, "replay": str(text), "replay_ratio": 0.3},
        "tuned, LoRA": {**tuned, "lora_r": 4, "lora_dropout": 0.1},
        "tuned, DoRA, packed, replay": {**tuned, "lora_r": 4, "use_dora": True, "packing": True, "replay": str(text)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=2, help="of each run")
    options = parser.parse_args()
    SMALL["torch_num_threads"] = options.threads
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = combinations(*material(folder))
        with ThreadPoolExecutor(options.jobs) as pool:
            whole = dict(zip(made, pool.map(lambda key: straight(made[key], folder / key), made), strict=True))
            plans = [
                (key, chance.uniform(0, whole[key][0]), folder / f"{number}")
                for number, key in zip(range(options.kills), itertools.cycle(made), strict=False)
            ]
            results = list(pool.map(lambda plan: killed(made[plan[0]], plan[1], plan[2]), plans))
    different = [
        {"combination": key, "after_seconds": round(moment, 2)}
        for (key, moment, _), result in zip(plans, results, strict=True)
        if result != whole[key][1]
    ]
    same = options.kills - len(different)
    row = {"bench": "kills", "metric": "equal_after_resume", "unit": "runs", "plume": same, "peer": options.kills}
    row |= {"peer_name": "runs killed", "ratio": round(same / options.kills, 3), "lower_is_better": False}
    print(json.dumps({**row, "runs": different, "combinations": list(made)}), flush=True)
    raise SystemExit(bool(different))


def material(folder: Path) -> tuple[Path, Path, Path]:
    """Rows, text, and a base model trained on the text."""
    lines = (DATA / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    rows, text = folder / "rows.jsonl", folder / "text.txt"
    rows.write_text("".join(lines[:ROWS]), encoding="utf-8")
    answers = "\n".join(json.loads(line)["prompt"] for line in lines[:POEM])
    text.write_text(answers + "\n", encoding="utf-8")
    straight({"data": str(text), "tokenizer": "bpe", "vocab_size": 600, "max_length": 128}, folder / "base")
    return rows, text, folder / "base" / "model"


def command(keys: dict[str, Any], path: Path) -> list[str]:
    small = {key: value for key, value in SMALL.items() if not ("base" in str(keys.get("model")) and key in SIZES)}
    pairs = [part for key, value in {**small, **keys}.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return [sys.executable, "-m", "plume", "train", "--output-dir", str(path), "--json", *pairs]


def straight(keys: dict[str, Any], path: Path) -> tuple[float, str]:
    """Seconds that a run takes, and what came of it."""
    began = time.monotonic()
    finish(command(keys, path))
    return time.monotonic() - began, digest(path)


def killed(keys: dict[str, Any], moment: float, path: Path) -> str:
    """What comes of a run killed at a moment and resumed."""
    with subprocess.Popen(command(keys, path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.kill()
    if (path / "recipe.yaml").is_file():
        finish([sys.executable, "-m", "plume", "train", "--resume", "--output-dir", str(path), "--json"])
    else:  # killed before there was anything to resume
        finish(command(keys, path))
    return digest(path)


def finish(arguments: list[str]) -> None:
    done = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stderr}")


def digest(path: Path) -> str:
    """Of every file of the model but its card, which names the run's directory and time."""
    whole = hashlib.sha256()
    for file in sorted(file for file in (path / "model").rglob("*") if file.is_file() and file.name != "README.md"):
        whole.update(file.name.encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()


if __name__ == "__main__":
    main()
