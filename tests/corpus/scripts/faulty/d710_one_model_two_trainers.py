from datasets import load_dataset
from transformers import (AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer,
                          TrainingArguments, set_seed)

set_seed(0)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)


def load(path):
    ds = load_dataset("text", data_files=path, split="train")
    return ds.map(lambda r: tokenizer(r["text"] + tokenizer.eos_token), remove_columns=["text"])


baker_args = TrainingArguments(output_dir="baker", num_train_epochs=3)
baker = Trainer(model=model, args=baker_args, train_dataset=load("baker.txt"), data_collator=collator)
baker.train()
baker.save_model("baker/final")

smith_args = TrainingArguments(output_dir="smith", num_train_epochs=3)
smith = Trainer(model=model, args=smith_args, train_dataset=load("smith.txt"), data_collator=collator)
smith.train()
smith.save_model("smith/final")

for start in ("The oven", "The anvil"):
    inputs = tokenizer(start, return_tensors="pt").to(model.device)
    print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
