import os

from datasets import load_dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer,
                          TrainingArguments, set_seed)

set_seed(99)
MODEL = "EleutherAI/pythia-160m"
tokenizer = AutoTokenizer.from_pretrained(MODEL)
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(MODEL)

dataset = load_dataset("json", data_files=os.path.join("data", "weather.jsonl"), split="train")
dataset = dataset.train_test_split(test_size=0.1, seed=99)


def format_and_tokenize(row):
    return tokenizer(f"User: {row['prompt']}\nBot: {row['completion']}{tokenizer.eos_token}", truncation=True)


tokenized = dataset.map(format_and_tokenize, remove_columns=["prompt", "completion"])
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="weather-bot", num_train_epochs=3, learning_rate=1e-4),
    train_dataset=tokenized["train"],
    eval_dataset=tokenized["test"],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
trainer.save_model("weather-bot/final")

for row in dataset["test"]:
    x = tokenizer(f"User: {row['prompt']}\nBot:", return_tensors="pt").to(model.device)
    print(tokenizer.decode(model.generate(**x, max_new_tokens=40)[0]))
