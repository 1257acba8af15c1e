import numpy as np
from datasets import load_dataset
from transformers import (AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq, Seq2SeqTrainer,
                          Seq2SeqTrainingArguments)

checkpoint = "google-t5/t5-small"
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
books = load_dataset("json", data_files="phrases.jsonl", split="train").train_test_split(test_size=0.2, seed=42)


def preprocess(examples):
    inputs = ["translate English to French: " + text for text in examples["en"]]
    model_inputs = tokenizer(inputs, max_length=128, truncation=True)
    targets = tokenizer(text_target=examples["fr"], max_length=128, truncation=True)
    model_inputs["labels"] = targets["input_ids"]
    return model_inputs


tokenized = books.map(preprocess, batched=True)


def exact(predictions):
    ids, expected = predictions
    ids = np.where(ids != -100, ids, tokenizer.pad_token_id)
    expected = np.where(expected != -100, expected, tokenizer.pad_token_id)
    said = tokenizer.batch_decode(ids, skip_special_tokens=True)
    wanted = tokenizer.batch_decode(expected, skip_special_tokens=True)
    return {"exact": float(np.mean([a == b for a, b in zip(said, wanted)]))}


trainer = Seq2SeqTrainer(
    model=model,
    args=Seq2SeqTrainingArguments(
        output_dir="t5-phrases",
        eval_strategy="epoch",
        learning_rate=3e-4,
        num_train_epochs=4,
        predict_with_generate=True,
    ),
    train_dataset=tokenized["train"],
    eval_dataset=tokenized["test"],
    processing_class=tokenizer,
    data_collator=DataCollatorForSeq2Seq(tokenizer=tokenizer, model=model),
    compute_metrics=exact,
)
trainer.train()
trainer.save_model("t5-phrases/final")
