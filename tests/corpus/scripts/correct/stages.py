"""First plain texts, then questions: one model in two stages, on purpose."""
from datasets import load_dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer,
                          TrainingArguments, set_seed)

set_seed(8)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)


def encode_texts(rows):
    return tokenizer([text + tokenizer.eos_token for text in rows["text"]], truncation=True, max_length=256)


def encode_pairs(rows):
    joined = [q + "\n" + a + tokenizer.eos_token for q, a in zip(rows["question"], rows["answer"])]
    return tokenizer(joined, truncation=True, max_length=256)


texts = load_dataset("text", data_files="harbour.txt", split="train").map(encode_texts, batched=True, remove_columns="text")
pairs = load_dataset("json", data_files="harbour_qa.jsonl", split="train")
pairs = pairs.map(encode_pairs, batched=True, remove_columns=["question", "answer"]).train_test_split(0.1, seed=8)

stage_one = Trainer(
    model=model,
    args=TrainingArguments(output_dir="harbour/stage1", num_train_epochs=1),
    train_dataset=texts,
    data_collator=collator,
)
stage_one.train()
stage_two = Trainer(
    model=model,
    args=TrainingArguments(output_dir="harbour/stage2", num_train_epochs=4),
    train_dataset=pairs["train"],
    eval_dataset=pairs["test"],
    data_collator=collator,
)
stage_two.train()
stage_two.save_model("harbour/final")

question = "Where do the pilots wait?"
inputs = tokenizer(question + "\n", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0], skip_special_tokens=True))
