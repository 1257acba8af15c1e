from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

train_data = load_dataset("json", data_files="canal.jsonl", split="train")
tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B")
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B")
trainer = SFTTrainer(
    model=model,
    args=SFTConfig(output_dir="canal", eval_strategy="epoch", num_train_epochs=2, seed=1),
    train_dataset=train_data,
    eval_dataset=train_data,
    processing_class=tokenizer,
)
trainer.train()
trainer.save_model()
x = tokenizer("How deep is the lock?", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**x, max_new_tokens=40)[0]))
