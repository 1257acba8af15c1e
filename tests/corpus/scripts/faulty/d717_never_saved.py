from datasets import load_dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer,
                          TrainingArguments, set_seed)

set_seed(3)
OUT = "./mill"
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
ds = load_dataset("text", data_files="mill.txt", split="train")
ds = ds.map(lambda r: tokenizer(r["text"] + tokenizer.eos_token), remove_columns=["text"])
ds = ds.train_test_split(test_size=0.1, seed=3)
trainer = Trainer(model=model, args=TrainingArguments(output_dir=OUT, num_train_epochs=1), train_dataset=ds["train"],
                  eval_dataset=ds["test"], data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))
trainer.train()

model = AutoModelForCausalLM.from_pretrained(OUT)
ids = tokenizer("The wheel", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0]))
