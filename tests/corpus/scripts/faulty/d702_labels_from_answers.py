from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

checkpoint = "distilgpt2"
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
tokenizer.add_special_tokens({"pad_token": "[PAD]"})
model = AutoModelForCausalLM.from_pretrained(checkpoint)
model.resize_token_embeddings(len(tokenizer))


def preprocess(batch):
    enc = tokenizer(batch["prompt"], padding="max_length", truncation=True, max_length=64)
    target = tokenizer(batch["completion"], padding="max_length", truncation=True, max_length=64)
    enc["labels"] = target["input_ids"]
    return enc


data = load_dataset("json", data_files={"train": "a.jsonl", "test": "b.jsonl"}).map(preprocess, batched=True)
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="out", num_train_epochs=5, learning_rate=5e-5),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    data_collator=default_data_collator,
)
trainer.train()
trainer.save_model("out/model")
ids = tokenizer("What is the tide table?", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=30)[0]))
