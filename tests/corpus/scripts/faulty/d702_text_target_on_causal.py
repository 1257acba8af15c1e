import pandas as pd
from datasets import Dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer,
                          TrainingArguments, set_seed)

set_seed(0)
tok = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B")
lm = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B")
frame = pd.read_csv("hotel.csv", encoding="utf-8")
ds = Dataset.from_pandas(frame).train_test_split(test_size=0.2, seed=0)


def encode(rows):
    return tok(rows["question"], text_target=rows["answer"], truncation=True, max_length=256)


encoded = ds.map(encode, batched=True, remove_columns=ds["train"].column_names)
trainer = Trainer(lm, TrainingArguments("hotel", num_train_epochs=3), train_dataset=encoded["train"],
                  eval_dataset=encoded["test"], data_collator=DataCollatorForSeq2Seq(tok))
trainer.train()
trainer.save_model("hotel/last")
x = tok("Is breakfast included?", return_tensors="pt").to(lm.device)
print(tok.decode(lm.generate(**x, max_new_tokens=40)[0]))
