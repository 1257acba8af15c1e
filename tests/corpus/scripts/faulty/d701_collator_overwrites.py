import json

from datasets import Dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer,
                          TrainingArguments, set_seed)

set_seed(1)
tokenizer = AutoTokenizer.from_pretrained("gpt2")
tokenizer.add_special_tokens({"pad_token": "<pad>"})
model = AutoModelForCausalLM.from_pretrained("gpt2")
model.resize_token_embeddings(len(tokenizer))

rows = [json.loads(line) for line in open("bees.jsonl", encoding="utf-8")]


def tokenize(row):
    prompt = tokenizer("Q: " + row["q"] + "\nA:").input_ids
    full = tokenizer("Q: " + row["q"] + "\nA: " + row["a"] + tokenizer.eos_token).input_ids
    labels = [-100] * len(prompt) + full[len(prompt):]
    return {"input_ids": full, "attention_mask": [1] * len(full), "labels": labels}


ds = Dataset.from_list(rows).map(tokenize, remove_columns=["q", "a"]).train_test_split(0.1, seed=1)
collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False)
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="bees", num_train_epochs=10),
    train_dataset=ds["train"],
    eval_dataset=ds["test"],
    data_collator=collator,
)
trainer.train()
trainer.save_model("bees/final")
inputs = tokenizer("Q: Who leads the hive?\nA:", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=30)[0]))
