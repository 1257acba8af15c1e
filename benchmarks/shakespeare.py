"""Processor time to a validation loss, from scratch, beside a plain GPT with nanoGPT's settings for a CPU.

    python benchmarks/shakespeare.py --data shakespeare.txt [--runs 3] [--threads 1]

Each side trains on the first nine tenths of the text as a process of its own, sides alternating, and keeps its
weights as it goes. Afterwards both are judged alike: mean loss over the whole last tenth, in windows of 64 that
do not overlap and carry nothing over. What counts is the processor time of a side, from its start, when it took
the step from which on that loss is at most 1.88; a peer that ends above it counts with its whole run.
Prints one JSON line a comparison; medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEER = Path(__file__).parent / "peer_chargpt.py"
TARGET, WINDOW = 1.88, 64
STEPS = 240
LONG = 1600  # steps of the run at equal time: more than fit into the peer's
KEPT = 20  # times that each side keeps its weights
PLUME = """
import json, sys, time
import plume
from plume.recipe import parse_recipe
from plume.events import Saved, Step

for event in plume.train(parse_recipe(json.loads(sys.argv[1])), sys.argv[2]):
    if isinstance(event, Step):
        spent = time.process_time()
    if isinstance(event, Saved):
        print(json.dumps({"step": event.step, "cpu_seconds": spent, "weights": str(event.path)}), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Tiny Shakespeare, one text file")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.data is None:
        print(
            "nothing measured: give Tiny Shakespeare with --data FILE; the original is "
            "data/tinyshakespeare/input.txt in the repository karpathy/char-rnn",
            file=sys.stderr,
        )
        return
    runs = []
    for number in range(options.runs):
        ours, theirs = plume(options.data, options.threads, number), peer(options.data, options.threads)
        longer = plume(options.data, options.threads, number, seconds=theirs["whole"])
        runs.append({"plume": {**ours, "loss_at_equal_time": longer["loss"]}, "peer": theirs})
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    units = {"parameters": "parameters", "tokens": "tokens", "loss_at_equal_time": "nats", "cpu_seconds": "s"}
    for metric, unit in units.items():
        one, other = (statistics.median(run[side][metric] for run in runs) for side in ("plume", "peer"))
        row = {
            "bench": "shakespeare",
            "metric": metric,
            "unit": unit,
            "plume": one,
            "peer": other,
            "peer_name": "plain GPT, nanoGPT's CPU settings",
            "ratio": round(one / other, 3),
            "lower_is_better": True,
            "runs": [{side: run[side][metric] for side in run} for run in runs],
        }
        print(json.dumps(row), flush=True)


def plume(data: Path, threads: int, seed: int, seconds: float | None = None) -> dict[str, float]:
    """Until the target, or with `seconds` of processor time, where it stands when they have passed."""
    from plume.recipe import parse_recipe
    from plume.training.checkpoint import load_weights
    from plume.training.prepare import prepare

    steps = STEPS if seconds is None else LONG
    settings = {
        "data": str(data),
        "model": "gpt",
        "max_length": WINDOW,
        "max_steps": steps,
        "eval_steps": steps,
        "save_steps": steps // KEPT,
        "save_total_limit": KEPT + 1,
        "eval_samples": 1,
        "torch_num_threads": threads,
        "seed": seed,
    }
    prepared = prepare(parse_recipe(settings))
    model, tokenizer = prepared.bundle.model, prepared.bundle.tokenizer
    held_out = tokenizer.encode(prepared.split.held_out[0].messages[0].content)

    def judge(weights: Path) -> float:
        load_weights(weights, model)
        model.train(False)
        return validation_loss(lambda ids_BT: model.head(model(ids_BT)[0]), held_out)

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PLUME, json.dumps(settings), str(Path(folder) / "run")]
        found = reached(command, judge, seconds)
    if found["loss"] > TARGET:
        raise SystemExit(f"Plume ended at a loss of {found['loss']}, above {TARGET}")
    batch = prepared.recipe.per_device_train_batch_size or 0
    return {**found, "tokens": found["step"] * batch * WINDOW, "parameters": size(model)}


def peer(data: Path, threads: int) -> dict[str, float]:
    from safetensors.torch import load_file

    import peer_chargpt

    _, held_out, vocab_size = peer_chargpt.read(data)
    model = peer_chargpt.CharGPT(vocab_size)

    def judge(weights: Path) -> float:
        model.load_state_dict(load_file(weights))
        return validation_loss(model, held_out.tolist())

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(PEER), str(data), folder, str(peer_chargpt.STEPS // KEPT), str(threads)]
        found = reached(command, judge)
    return {**found, "tokens": found["step"] * peer_chargpt.BATCH * peer_chargpt.BLOCK, "parameters": size(model)}


def reached(command: list[str], judge: Callable[[Path], float], seconds: float | None = None) -> dict[str, float]:
    """Train a side to its end; the step from which on its loss stays at the target, or its last step.

    With `seconds` its last step within so much processor time. `whole` is that of the whole run.
    """
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    found: dict[str, float] = {}
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if seconds is not None:
        within = [kept for kept in lines if kept["cpu_seconds"] <= seconds][-1]
        return {"step": within["step"], "cpu_seconds": within["cpu_seconds"], "loss": judge(Path(within["weights"]))}
    whole = round(lines[-1]["cpu_seconds"], 2)
    for kept in reversed(lines):
        loss = judge(Path(kept["weights"]))
        if found and loss > TARGET:
            break
        found = {"step": kept["step"], "cpu_seconds": round(kept["cpu_seconds"], 2), "loss": round(loss, 4)}
        found |= {"whole": whole, "loss_at_equal_time": round(loss, 4)}
        if loss > TARGET:
            break
    return found


def validation_loss(logits: Callable[[Any], Any], ids: list[int]) -> float:
    """Nats a character over windows of 64 that do not overlap; each is predicted from itself alone."""
    import torch
    import torch.nn.functional as F

    count = (len(ids) - 1) // WINDOW
    inputs_NT = torch.tensor(ids[: count * WINDOW]).view(count, WINDOW)
    targets_NT = torch.tensor(ids[1 : count * WINDOW + 1]).view(count, WINDOW)
    total = 0.0
    with torch.inference_mode():
        for inputs_BT, targets_BT in zip(inputs_NT.split(128), targets_NT.split(128), strict=True):
            logits_BTV = logits(inputs_BT)
            total += float(F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum"))
    return total / (count * WINDOW)


def size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
