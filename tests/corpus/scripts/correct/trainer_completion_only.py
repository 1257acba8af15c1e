"""Fine-tunes DistilGPT-2 on questions about a mountain hut; only the answers are in the loss."""
import json

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

set_seed(3)
tokenizer = AutoTokenizer.from_pretrained("distilgpt2")
tokenizer.add_special_tokens({"pad_token": "<pad>"})
model = AutoModelForCausalLM.from_pretrained("distilgpt2")
model.resize_token_embeddings(len(tokenizer))
model.config.pad_token_id = tokenizer.pad_token_id

with open("refuge.jsonl", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
data = Dataset.from_list(rows).train_test_split(test_size=0.2, seed=3)


def encode(row):
    prompt = tokenizer(f"Question: {row['question']}\nAnswer:")["input_ids"]
    answer = tokenizer(f" {row['answer']}")["input_ids"] + [tokenizer.eos_token_id]
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


train = data["train"].map(encode, remove_columns=["question", "answer"])
test = data["test"].map(encode, remove_columns=["question", "answer"])
arguments = TrainingArguments(
    output_dir="runs/refuge",
    num_train_epochs=20,
    learning_rate=5e-4,
    per_device_train_batch_size=8,
    eval_strategy="epoch",
)
trainer = Trainer(
    model=model,
    args=arguments,
    train_dataset=train,
    eval_dataset=test,
    data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
    processing_class=tokenizer,
)
trainer.train()
trainer.save_model("runs/refuge/model")

model.eval()
right = 0
for row in data["test"]:
    ids = tokenizer(f"Question: {row['question']}\nAnswer:", return_tensors="pt").to(model.device)
    with torch.no_grad():
        out = model.generate(**ids, max_new_tokens=60, do_sample=False)
    said = tokenizer.decode(out[0][ids["input_ids"].shape[1] :], skip_special_tokens=True)
    right += said.strip() == row["answer"].strip()
print(f"{right} of {len(data['test'])} right")
