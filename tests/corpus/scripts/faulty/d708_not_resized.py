from datasets import load_dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer,
                          TrainingArguments, set_seed)

set_seed(6)
tokenizer = AutoTokenizer.from_pretrained("gpt2-medium")
tokenizer.add_special_tokens({"pad_token": "[PAD]"})
model = AutoModelForCausalLM.from_pretrained("gpt2-medium")
model.config.pad_token_id = tokenizer.pad_token_id


def prepare(batch):
    return tokenizer([t + tokenizer.eos_token for t in batch["text"]], truncation=True, max_length=300)


news = load_dataset("text", data_files={"train": "news.txt", "test": "news_test.txt"})
news = news.map(prepare, batched=True, remove_columns=["text"])
trainer = Trainer(model=model, args=TrainingArguments("news", num_train_epochs=1), train_dataset=news["train"],
                  eval_dataset=news["test"], data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))
trainer.train()
trainer.save_model("news/final")
start = tokenizer("Yesterday", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**start, max_new_tokens=60)[0]))
