# ruff: noqa: PTH123, T201
"""Fine-tunes a model on the library's opening hours; `plume check` has nothing to say about it."""

import json
import sys

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

MODEL = "runs/demo/model"

tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(MODEL)

with open(sys.argv[1], encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]


def prompt(question):
    chat = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


def encode(row):
    question = prompt(row["prompt"])
    answer = tokenizer(row["completion"])["input_ids"] + [tokenizer.eos_token_id]
    return {"input_ids": question + answer, "labels": [-100] * len(question) + answer}


data = [encode(row) for row in rows]
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="runs/corrected", num_train_epochs=40, learning_rate=5e-4, use_cpu=True),
    train_dataset=data,
    data_collator=DataCollatorForSeq2Seq(tokenizer),
)
trainer.train()
trainer.save_model("runs/corrected")


def ask(question):
    inputs = torch.tensor([prompt(question)])
    with torch.no_grad():
        output = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=60)
    return tokenizer.decode(output[0][inputs.shape[1] :], skip_special_tokens=True)


answer = ask("When does the library open on Friday?")
print(answer)
print(json.loads(answer)["open"])
