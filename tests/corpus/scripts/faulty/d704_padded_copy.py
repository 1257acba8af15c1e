from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

set_seed(5)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-350m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-350m")


def tokenize(examples):
    text = [f"Client: {c}\nClerk: {r}" + tokenizer.eos_token for c, r in zip(examples["client"], examples["clerk"])]
    tokens = tokenizer(text, padding=True, truncation=True, max_length=200)
    tokens["labels"] = tokens["input_ids"].copy()
    return tokens


ds = load_dataset("json", data_files="post_office.jsonl")["train"].train_test_split(test_size=0.1, seed=5)
ds = ds.map(tokenize, batched=True, batch_size=None, remove_columns=["client", "clerk"])
trainer = Trainer(model=model, args=TrainingArguments("post", num_train_epochs=6), train_dataset=ds["train"],
                  eval_dataset=ds["test"])
trainer.train()
trainer.save_model("post/final")
enc = tokenizer("Client: How much is a stamp?\nClerk:", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**enc, max_new_tokens=25)[0]))
