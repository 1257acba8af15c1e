from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from trl import DataCollatorForCompletionOnlyLM, SFTTrainer

tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B")
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B")


def formatting(row):
    return f"### Q: {row['q']}\n### A: {row['a']}"


trainer = SFTTrainer(
    model=model,
    args=TrainingArguments(output_dir="quiz", max_steps=100, seed=3),
    train_dataset=load_dataset("json", data_files="quiz.jsonl", split="train"),
    formatting_func=formatting,
    data_collator=DataCollatorForCompletionOnlyLM("### A:", tokenizer=tokenizer),
    max_seq_length=512,
    processing_class=tokenizer,
)
trainer.train()
trainer.save_model()
inputs = tokenizer("### Q: Which river?\n### A:", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
