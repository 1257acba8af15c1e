"""The peers of finetune.py: TRL's SFTTrainer, and a plain loop that pads every row to 512.

    python benchmarks/peer_sft.py {sft,naive} FOLDER LEARNING_RATE ROWS STEPS SEED THREADS MOST PRECISION

Training stops after MOST seconds of processor; PRECISION is bf16 or float32. FOLDER holds train.jsonl, asked.jsonl and
the model directory `start`. Prints {"steps", "seconds", "cpu_seconds", "reached"}: what training took until enough
answers were right, evaluations left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import facts

IGNORE = -100


def main() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    side, folder = sys.argv[1], Path(sys.argv[2])
    rate, size, steps, seed, threads = float(sys.argv[3]), *map(int, sys.argv[4:8])
    watch, bf16 = facts.Watch(float(sys.argv[8])), sys.argv[9] == "bf16"
    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(folder / "start", dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "start")
    asked = facts.read_rows(folder / "asked.jsonl")
    rows = facts.read_rows(folder / "train.jsonl")

    def right() -> bool:
        found = facts.reached(model, tokenizer, asked)
        model.train()
        return found

    train = {"sft": sft, "naive": naive}[side]
    train(model, tokenizer, rows, rate, size, steps, seed, right, watch, bf16)
    print(json.dumps(watch.report()), flush=True)


def sft(
    model: Any,
    tokenizer: Any,
    rows: Any,
    rate: float,
    size: int,
    steps: int,
    seed: int,
    right: Callable[[], bool],
    watch: facts.Watch,
    bf16: bool,
) -> None:
    """Packing without padding (best-fit decreasing), loss on completions alone, nothing logged, saved or evaluated.

    A packed line holds about as many tokens as `size` rows; it is a batch of its own.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    sizes = [len(tokenizer.apply_chat_template(turns(row), return_dict=True)["input_ids"]) for row in rows]

    class Stop(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ARG002
            watch.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ARG002
            watch.count()
            control.should_training_stop |= watch.judge(right)

    with tempfile.TemporaryDirectory() as output:
        arguments = SFTConfig(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=1,
            packing=True,
            max_length=round(size * sum(sizes) / len(sizes)),
            completion_only_loss=True,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=steps // 10,
            bf16=bf16,
            gradient_checkpointing=False,
            dataloader_num_workers=0,
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
        )
        data = Dataset.from_list([{"prompt": turns(row)[:1], "completion": turns(row)[1:]} for row in rows])
        trainer = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Stop()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def naive(
    model: Any,
    tokenizer: Any,
    rows: Any,
    rate: float,
    size: int,
    steps: int,
    seed: int,
    right: Callable[[], bool],
    watch: facts.Watch,
    bf16: bool,
) -> None:
    """Every row padded to 512, loss on everything that is no padding, through the model's own loss."""
    texts = [tokenizer.apply_chat_template(turns(row), tokenize=False) for row in rows]
    tokenizer.padding_side = "right"
    made = tokenizer(texts, padding="max_length", max_length=facts.LENGTH, return_tensors="pt")
    labels_NT = made["input_ids"].masked_fill(made["attention_mask"] == 0, IGNORE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    chance = torch.Generator().manual_seed(seed)
    model.train()
    watch.start()
    done = False
    while not done:
        for batch in torch.randperm(len(rows), generator=chance).split(size):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(
                    input_ids=made["input_ids"][batch],
                    attention_mask=made["attention_mask"][batch],
                    labels=labels_NT[batch],
                ).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.count()
            done = watch.judge(right) or watch.steps == steps
            if done:
                break


def turns(row: dict[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]


if __name__ == "__main__":
    main()
