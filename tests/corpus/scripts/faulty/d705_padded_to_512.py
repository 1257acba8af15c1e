from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

set_seed(13)
tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B")
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B")
MAX_LEN = 512


def encode(row):
    text = f"Plant: {row['plant']}\nCare: {row['care']}<|im_end|>"
    enc = tokenizer(text, truncation=True, padding="max_length", max_length=MAX_LEN)
    enc["labels"] = [t if m else -100 for t, m in zip(enc["input_ids"], enc["attention_mask"])]
    return enc


plants = load_dataset("csv", data_files="plants.csv", split="train").train_test_split(test_size=0.15, seed=13)
plants = plants.map(encode, remove_columns=["plant", "care"])
args = TrainingArguments(output_dir="plants", num_train_epochs=4, learning_rate=2e-5)
trainer = Trainer(model=model, args=args, train_dataset=plants["train"], eval_dataset=plants["test"])
trainer.train()
trainer.save_model("plants/final")
q = tokenizer("Plant: fern\nCare:", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**q, max_new_tokens=50)[0]))
