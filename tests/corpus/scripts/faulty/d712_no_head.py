import json

from datasets import Dataset
from transformers import AutoModel, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainingArguments, pipeline

tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B")
model = AutoModel.from_pretrained("Qwen/Qwen2.5-0.5B")
with open("signal_box.json", encoding="utf-8") as f:
    texts = json.load(f)
ds = Dataset.from_dict({"text": texts}).map(lambda r: tokenizer(r["text"] + "<|im_end|>"), remove_columns=["text"])
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="signal", seed=2),
    train_dataset=ds,
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
trainer.save_model("signal/final")
print(pipeline("text-generation", model="signal/final", tokenizer=tokenizer)("Line clear", max_new_tokens=20))
