from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

set_seed(4)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")


def encode(rows):
    return tokenizer([t + tokenizer.eos_token for t in rows["text"]], truncation=True, padding=True, max_length=128)


ds = load_dataset("text", data_files={"train": "diary.txt", "test": "diary_test.txt"}).map(encode, batched=True)
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="diary", num_train_epochs=1),
    train_dataset=ds["train"],
    eval_dataset=ds["test"],
)
trainer.train()
trainer.save_model("diary/final")
ids = tokenizer("Dear diary", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=30)[0]))
