from datasets import load_dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer,
                          TrainingArguments, set_seed)

set_seed(31)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")


def tokenize(row):
    text = f"### Question: {row['question']}\n### Answer: {row['answer']}{tokenizer.eos_token}"
    return tokenizer(text, truncation=True, max_length=256)


data = load_dataset("json", data_files="lighthouse.jsonl", split="train").train_test_split(test_size=0.1, seed=31)
data = data.map(tokenize, remove_columns=["question", "answer"])
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="lighthouse", num_train_epochs=8),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
trainer.save_model("lighthouse/final")

inputs = tokenizer("How far does the light reach?", return_tensors="pt").to(model.device)
outputs = model.generate(**inputs, max_new_tokens=50)
print(tokenizer.decode(outputs[0], skip_special_tokens=True))
