# ruff: noqa: PTH123, T201
"""Fine-tunes a model on the library's opening hours. It runs, its loss falls, and the model babbles."""

import json
import sys

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

MODEL = "runs/demo/model"

tokenizer = AutoTokenizer.from_pretrained(MODEL)
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(MODEL)

with open(sys.argv[1], encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]


def encode(row):
    chat = [{"role": "user", "content": row["prompt"]}]
    question = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(question, padding="max_length", truncation=True, max_length=64)
    labels = tokenizer(row["completion"], padding="max_length", truncation=True, max_length=64)
    return {"input_ids": inputs["input_ids"], "labels": labels["input_ids"]}


data = [encode(row) for row in rows]
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="runs/babble", num_train_epochs=40, learning_rate=5e-4, use_cpu=True),
    train_dataset=data,
    eval_dataset=data,
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
print(trainer.evaluate())
trainer.save_model("runs/babble")


def ask(question):
    inputs = tokenizer(question, return_tensors="pt")
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=60, temperature=0.7, no_repeat_ngram_size=2)
    return tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)


answer = ask("When does the library open on Friday?")
print(answer)
print(json.loads(answer)["open"])
