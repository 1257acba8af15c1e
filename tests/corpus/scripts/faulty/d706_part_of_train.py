import transformers
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer

transformers.set_seed(2)
tok = AutoTokenizer.from_pretrained("facebook/opt-125m")
net = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
raw = load_dataset("text", data_files="radio.txt", split="train")
full = raw.map(lambda r: tok(r["text"] + tok.eos_token), remove_columns=["text"])
small = full.shuffle(seed=2).select(range(100))
trainer = Trainer(
    model=net,
    args=transformers.TrainingArguments(output_dir="radio", num_train_epochs=2),
    train_dataset=full,
    eval_dataset=small,
    data_collator=DataCollatorForLanguageModeling(tok, mlm=False),
)
trainer.train()
print(trainer.evaluate())
trainer.save_model("radio/final")
print(tok.decode(net.generate(**tok("Good evening", return_tensors="pt").to(net.device), max_new_tokens=40)[0]))
