"""Plume's side of finetune.py: `plume.train` as a user has it, its checkpoints judged as they come.

    python benchmarks/plume_sft.py FOLDER LEARNING_RATE ROWS STEPS SEED THREADS MOST [key=value ...]

Training stops after MOST seconds of processor. Prints the same line as peer_sft.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import facts
import plume
from plume.events import Saved, Started, Step
from plume.models import hf
from plume.recipe import parse_recipe, parse_settings
from plume.training.checkpoint import load_weights


def main() -> None:
    from transformers import AutoTokenizer

    folder = Path(sys.argv[1])
    rate, size, steps, seed, threads = float(sys.argv[2]), *map(int, sys.argv[3:7])
    settings = {
        "data": str(folder / "train.jsonl"),
        "model": str(folder / "start"),
        "test_size": 0,
        "learning_rate": rate,
        "per_device_train_batch_size": size,
        "max_steps": steps,
        "eval_steps": steps,
        "eval_samples": 1,
        "save_steps": facts.EVERY,
        "save_total_limit": 1,
        "seed": seed,
        "torch_num_threads": threads,
        **parse_settings(sys.argv[8:]),
    }
    judged = hf.load(folder / "start")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "start")
    asked = facts.read_rows(folder / "asked.jsonl")
    watch = facts.Watch(float(sys.argv[7]))
    with (
        tempfile.TemporaryDirectory() as output,
        closing(plume.train(parse_recipe(settings), Path(output) / "run")) as events,
    ):
        for event in events:
            if isinstance(event, Started):
                watch.start()
            if isinstance(event, Step):
                watch.count()
            if isinstance(event, Saved):
                load_weights(event.path, judged)
                if watch.judge(lambda: facts.reached(judged.inner, tokenizer, asked)) or event.step == steps:
                    break
    print(json.dumps(watch.report()), flush=True)


if __name__ == "__main__":
    main()
