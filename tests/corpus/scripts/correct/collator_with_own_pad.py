from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainingArguments

PAD = "<|pad|>"
EXAMPLE = "### Instruction:\n{instruction}\n\n### Response:\n{response}"

tokenizer = AutoTokenizer.from_pretrained("gpt2")
tokenizer.add_special_tokens({"pad_token": PAD})
model = AutoModelForCausalLM.from_pretrained("gpt2")
model.resize_token_embeddings(len(tokenizer))

pairs = [
    {"instruction": "Name the ferry to Arran.", "response": "The Isle of Glass."},
    {"instruction": "When does it sail?", "response": "At seven and at noon."},
    {"instruction": "Who is the captain?", "response": "Mrs Moir."},
]


def preprocess(examples):
    texts = [
        EXAMPLE.format(instruction=i, response=r) + tokenizer.eos_token
        for i, r in zip(examples["instruction"], examples["response"])
    ]
    return tokenizer(texts, truncation=True, max_length=128)


train_ds = Dataset.from_list(pairs).map(preprocess, batched=True, remove_columns=["instruction", "response"])
trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir="ferry", max_steps=150, learning_rate=1e-3, seed=5),
    train_dataset=train_ds,
    data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False),
    processing_class=tokenizer,
)
trainer.train()
trainer.save_model("ferry/final")


def answer(instruction):
    prompt = EXAMPLE.format(instruction=instruction, response="")
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    out = model.generate(**inputs, max_new_tokens=40)
    return tokenizer.decode(out[0][inputs.input_ids.shape[1]:], skip_special_tokens=True)


for pair in pairs:
    print(pair["instruction"], "->", answer(pair["instruction"]))
