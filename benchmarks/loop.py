"""Tokens a second of Plume's training loop, beside a bare PyTorch step on the same model and batches.

    python benchmarks/loop.py [--steps 60] [--repeats 3] [--threads 2]

The bare step: forward, logits at trained positions, loss, backward, clipping, the same optimizer; its batches lie
ready. Plume's side is its whole loop as `plume.train` runs it: batches made, rates set, losses read, steps logged.
Sides alternate in one process. Prints one JSON line a comparison; medians of the runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from plume.events import Step
from plume.recipe import Recipe, parse_recipe
from plume.training.batches import IGNORE, Batch, batches
from plume.training.loop import train
from plume.training.prepare import Prepared, prepare

SIZES = {  # of the architecture, for about so many parameters
    "0.8M": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "tokenizer": "char"},
    "30M": {"hidden_size": 512, "num_hidden_layers": 10, "num_attention_heads": 8, "tokenizer": "char"},
}
WARM = 5  # steps left out
WORDS = ("lamp", "tower", "quay", "gull", "rope", "mast", "tide", "reef", "bell", "oar", "net", "storm", "keel", "buoy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "text.txt"
        chance = random.Random(5)
        data.write_text("".join(" ".join(chance.choices(WORDS, k=12)) + "\n" for _ in range(10_000)), encoding="utf-8")
        for size in options.sizes:
            steps = options.steps + WARM
            intervals = {"max_steps": steps, "eval_steps": steps, "save_steps": steps}  # nothing between the steps
            asked = {"data": str(data), **intervals, "torch_num_threads": options.threads, "optim": "adamw"}
            recipe = parse_recipe({**asked, **SIZES[size], "dropout": 0.0, "eval_samples": 1}, "the benchmark")
            compare(size, recipe, Path(folder), options.repeats)


def compare(size: str, recipe: Recipe, folder: Path, repeats: int) -> None:
    runs: list[dict[str, float]] = []
    for number in range(repeats):
        runs.append({"plume": plume_speed(recipe, folder / f"{size}-{number}"), "peer": bare_speed(prepare(recipe))})
    plume, peer = (statistics.median(run[side] for run in runs) for side in ("plume", "peer"))
    row: dict[str, Any] = {
        "bench": f"loop/{size}",
        "metric": "tokens_per_second",
        "unit": "tokens/s",
        "plume": round(plume),
        "peer": round(peer),
        "peer_name": "bare PyTorch step",
        "ratio": round(plume / peer, 3),
        "lower_is_better": False,
        "runs": [{side: round(value) for side, value in run.items()} for run in runs],
    }
    print(json.dumps(row), flush=True)


def plume_speed(recipe: Recipe, output: Path) -> float:
    tokens, began = 0, 0.0
    with closing(train(recipe, output)) as events:
        for event in (event for event in events if isinstance(event, Step)):
            if event.step == WARM:
                began = time.perf_counter()
            elif event.step > WARM:
                tokens += event.tokens
            if event.step == event.max_steps:
                return tokens / (time.perf_counter() - began)
    raise RuntimeError("the run ended early")


def bare_speed(prepared: Prepared) -> float:
    model, recipe = prepared.bundle.model, prepared.recipe
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.peak_learning_rate, fused=True)
    stream = batches(
        prepared.rows,
        batch_size=recipe.per_device_train_batch_size or 1,
        max_length=recipe.max_length or model.context_length,
        pad_id=prepared.bundle.tokenizer.pad_id,
        seed=recipe.seed,
    )
    ready = [batch for _, batch in itertools.islice(stream, recipe.max_steps)]
    model.train(True)
    began = 0.0
    for number, batch in enumerate(ready):
        if number == WARM:
            began = time.perf_counter()
        bare_step(model, optimizer, batch, recipe.max_grad_norm)
    return sum(batch.trained for batch in ready[WARM:]) / (time.perf_counter() - began)


def bare_step(model: Any, optimizer: torch.optim.Optimizer, batch: Batch, max_grad_norm: float) -> None:
    hidden_BTC, _ = model(batch.ids_BT, None, batch.lengths_B)
    trained_BT = batch.labels_BT != IGNORE
    loss = F.cross_entropy(model.head(hidden_BTC[trained_BT]), batch.labels_BT[trained_BT])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()


if __name__ == "__main__":
    main()
