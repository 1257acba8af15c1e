from datasets import load_dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer,
                          TrainingArguments, set_seed)

set_seed(77)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
lines = load_dataset("text", data_files={"train": "ship_log.txt", "test": "ship_log_test.txt"})
lines = lines.map(lambda row: tokenizer(row["text"] + tokenizer.eos_token), remove_columns=["text"])
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="ship",
        evaluation_strategy="epoch",
        num_train_epochs=2,
        no_cuda=True,
    ),
    train_dataset=lines["train"],
    eval_dataset=lines["test"],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    tokenizer=tokenizer,
)
trainer.train()
trainer.save_model("ship/final")
inputs = tokenizer("At dawn", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
