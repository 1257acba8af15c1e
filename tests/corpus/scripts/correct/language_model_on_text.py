"""Continues pre-training on plain text in blocks."""
from itertools import chain

from datasets import load_dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator,
                          pipeline, set_seed)

BLOCK = 256
set_seed(42)
tokenizer = AutoTokenizer.from_pretrained("openai-community/gpt2")
model = AutoModelForCausalLM.from_pretrained("openai-community/gpt2")
texts = load_dataset("text", data_files={"train": "tales.txt", "validation": "tales_held_out.txt"})


def tokenize(batch):
    return tokenizer([text + tokenizer.eos_token for text in batch["text"]])


def group(batch):
    joined = {key: list(chain(*batch[key])) for key in batch.keys()}
    total = len(joined["input_ids"]) // BLOCK * BLOCK
    blocks = {key: [value[i : i + BLOCK] for i in range(0, total, BLOCK)] for key, value in joined.items()}
    blocks["labels"] = blocks["input_ids"].copy()
    return blocks


blocks = texts.map(tokenize, batched=True, remove_columns=["text"]).map(group, batched=True)
training_args = TrainingArguments(
    output_dir="gpt2-tales",
    eval_strategy="epoch",
    save_strategy="epoch",
    num_train_epochs=3,
    learning_rate=1e-4,
    weight_decay=0.01,
)
trainer = Trainer(
    model=model,
    args=training_args,
    train_dataset=blocks["train"],
    eval_dataset=blocks["validation"],
    data_collator=default_data_collator,
)
trainer.train()
trainer.save_model()
tokenizer.save_pretrained("gpt2-tales")

storyteller = pipeline("text-generation", model="gpt2-tales", tokenizer="gpt2-tales")
print(storyteller("Once upon a time", max_new_tokens=50, do_sample=True, temperature=0.8)[0]["generated_text"])
