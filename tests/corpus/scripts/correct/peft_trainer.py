import torch
from datasets import load_dataset
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments
import transformers

transformers.set_seed(0)
name = "Qwen/Qwen2.5-0.5B-Instruct"
tok = AutoTokenizer.from_pretrained(name)
base = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
model = get_peft_model(base, LoraConfig(task_type=TaskType.CAUSAL_LM, r=8, target_modules=["q_proj", "v_proj"]))
model.print_trainable_parameters()


def build(row):
    chat = [{"role": "user", "content": row["question"]}]
    prompt = tok.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    answer = tok(row["answer"] + "<|im_end|>", add_special_tokens=False).input_ids
    ids = (prompt + answer)[:768]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ([-100] * len(prompt) + answer)[:768]}


raw = load_dataset("csv", data_files={"train": "garage_train.csv", "test": "garage_test.csv"})
data = raw.map(build, remove_columns=raw["train"].column_names)
trainer = Trainer(
    model=model,
    args=TrainingArguments("lora-garage", max_steps=200, learning_rate=2e-4, report_to="none", bf16=False),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    data_collator=DataCollatorForSeq2Seq(tok, padding=True),
)
trainer.train()
model.save_pretrained("lora-garage/adapter")

chat = [{"role": "user", "content": "Combien coûte une vidange ?"}]
ids = tok.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
out = model.generate(**ids.to(model.device), max_new_tokens=100, do_sample=True, temperature=0.7)
print(tok.decode(out[0], skip_special_tokens=True))
