"""The peer of training.py: transformers' Trainer on the same rows, from the same initial weights.

    python benchmarks/peer_trainer.py DATA RUN STEPS

RUN is a Plume run of one step; its recipe gives batch, rate and length, its first weights and tokenizer the
rest. Prints {"event": "step", "tokens": n} after each step.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

IGNORE = -100


def main() -> None:
    data, run, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    torch.set_num_threads(recipe["torch_num_threads"])
    torch.manual_seed(recipe["seed"])
    tokenizer: Any = AutoTokenizer.from_pretrained(run / "model")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(run / "model"))
    text = data.suffix == ".txt"
    rows = text_rows(data, tokenizer, recipe["max_length"]) if text else chat_rows(data, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=recipe["per_device_train_batch_size"],
            learning_rate=recipe["learning_rate"],
            warmup_steps=steps // 10,
            lr_scheduler_type="cosine",
            weight_decay=recipe["weight_decay"],
            max_grad_norm=recipe["max_grad_norm"],
            train_sampling_strategy="random" if text else "group_by_length",
            save_strategy="no",
            report_to=[],
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        counting = Counting(tokenizer)
        trainer = Trainer(model, arguments, data_collator=counting, train_dataset=rows, callbacks=[counting.printer])
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def chat_rows(data: Path, tokenizer: Any) -> Any:
    rows = []
    for line in data.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        made = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
        labels = [id if mask else IGNORE for id, mask in zip(made["input_ids"], made["assistant_masks"], strict=True)]
        rows.append({"input_ids": made["input_ids"], "labels": labels})
    return rows


def text_rows(data: Path, tokenizer: Any, length: int) -> Any:
    ids = tokenizer(data.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    blocks = [ids[start : start + length + 1] for start in range(0, len(ids) - length, length)]
    return [{"input_ids": block, "labels": block} for block in blocks]


class Counting:
    """A collator that remembers how many tokens of each batch the loss counts."""

    def __init__(self, tokenizer: Any) -> None:
        self._collate = DataCollatorForSeq2Seq(tokenizer)
        self._tokens: list[int] = []
        self.printer = Printer(self._tokens)

    def __call__(self, rows: Any) -> Any:
        batch = self._collate(rows)
        self._tokens.append(int((batch["labels"][:, 1:] != IGNORE).sum()))
        return batch


class Printer(TrainerCallback):
    """Say that a step is done, on stdout."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ARG002
        print(json.dumps({"event": "step", "tokens": self._tokens[state.global_step - 1]}), flush=True)


if __name__ == "__main__":
    main()
