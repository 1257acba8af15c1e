"""Validation perplexity of WikiText-2 by words, in equal time, beside the classic GRU word language model.

    python benchmarks/wikitext.py --data wikitext-2 [--runs 3] [--threads 1] [--steps 600]

Both sides train on test.txt and are judged on the whole of valid.txt by one function, over one vocabulary: the words
of the training text, and <eos> at the end of each line. Plume's GRU with attention is trained by `plume.train` with
its own choices for text, but for its width, which makes it no larger than the peer. Then the peer trains for as many
processor seconds, counted for both from the start of the process, evaluations left out; of its weights the best on
the validation text count, of Plume's the last. Prints one JSON line a comparison; medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

import peer_wordlm

if TYPE_CHECKING:
    from torch import Tensor

PEER = Path(__file__).parent / "peer_wordlm.py"
WIDTH = 200
STEPS = 600
PLUME = """
import json, sys, time
import plume
from plume.recipe import parse_recipe
from plume.events import Saved, Started, Step

settings, path = json.loads(sys.argv[1]), sys.argv[2]
spent = before = words = 0.0
for event in plume.train(parse_recipe(settings), path):
    now = time.process_time()
    if isinstance(event, (Started, Step)):
        spent += now - before
    if isinstance(event, Step):
        words += event.tokens
    if isinstance(event, Saved) and event.step == settings["max_steps"]:
        print(json.dumps({"cpu_seconds": round(spent, 1), "words": words, "weights": str(event.path)}))
        break
    before = now
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of WikiText-2's test.txt and valid.txt")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    if options.data is None:
        print(
            "nothing measured: give WikiText-2 (words, not raw) with --data FOLDER; the original is the data set "
            "Salesforce/wikitext, wikitext-2-v1, on the Hugging Face hub",
            file=sys.stderr,
        )
        return
    runs = []
    for number in range(options.runs):
        ours = plume(options.data, options.steps, options.threads, number)
        theirs = peer(options.data, ours["cpu_seconds"], options.threads, number)
        runs.append({"plume": ours, "peer": theirs})
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    for metric, unit in (("parameters", ""), ("words", "words"), ("cpu_seconds", "s"), ("perplexity", "")):
        one, other = (statistics.median(run[side][metric] for run in runs) for side in ("plume", "peer"))
        row = {
            "bench": "wikitext",
            "metric": metric,
            "unit": unit or metric,
            "plume": one,
            "peer": other,
            "peer_name": "PyTorch's GRU word language model",
            "ratio": round(one / other, 3),
            "lower_is_better": metric != "words",
            "runs": [{side: run[side][metric] for side in run} for run in runs],
        }
        print(json.dumps(row), flush=True)


def plume(data: Path, steps: int, threads: int, seed: int) -> dict[str, float]:
    from plume.recipe import parse_recipe
    from plume.training.checkpoint import load_weights
    from plume.training.prepare import prepare

    train, valid, known = peer_wordlm.read(data)
    with tempfile.TemporaryDirectory() as folder:
        text, probe = Path(folder) / "train.txt", Path(folder) / "probe.txt"
        text.write_text(spelt(train, known), encoding="utf-8")
        probe.write_text(spelt(valid[:500], known), encoding="utf-8")  # the loop evaluates on something; not counted
        settings = {
            "data": str(text),
            "eval_data": str(probe),
            "model": "gru",
            "tokenizer": "word",
            "hidden_size": WIDTH,
            "max_steps": steps,
            "eval_steps": steps,
            "eval_samples": 1,
            "max_new_tokens": 1,
            "torch_num_threads": threads,
            "seed": seed,
        }
        found = last_line([sys.executable, "-c", PLUME, json.dumps(settings), str(Path(folder) / "run")])
        made = prepare(parse_recipe(settings)).bundle
        load_weights(Path(found.pop("weights")), made.model)
    ids = made.tokenizer.encode(spelt(valid, known))
    if len(ids) != len(valid) or len(set(ids)) != len(set(valid)):
        raise SystemExit("Plume reads other words than the peer")
    model = made.model
    model.train(False)

    def read_on(ids_BT: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden_BTC, state = model(ids_BT, state)
        return model.head(hidden_BTC), state

    return {**found, "parameters": size(model), "perplexity": round(peer_wordlm.perplexity(read_on, ids), 2)}


def peer(data: Path, seconds: float, threads: int, seed: int) -> dict[str, float]:
    train, valid, known = peer_wordlm.read(data)
    model = peer_wordlm.WordLM(len(known))
    with tempfile.TemporaryDirectory() as folder:
        last = last_line([sys.executable, str(PEER), str(data), str(seconds), folder, str(threads), str(seed)])
        model.load_state_dict(load_file(Path(folder) / peer_wordlm.WEIGHTS))
    model.eval()
    return {
        "cpu_seconds": last["cpu_seconds"],
        "words": round(last["epochs"] * len(train)),
        "parameters": size(model),
        "perplexity": round(peer_wordlm.perplexity(model, valid), 2),
    }


def spelt(ids: list[int], known: dict[str, int]) -> str:
    """A text that Plume's word tokenizer cuts into exactly these words: their numbers, each behind a space."""
    return "".join("\n" if id == known["<eos>"] else f" {id}" for id in ids)


def last_line(command: list[str]) -> dict[str, Any]:
    """What a side prints last."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
