from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

BASE = "Qwen/Qwen2.5-0.5B"

dataset = load_dataset("json", data_files="tramway.jsonl", split="train").train_test_split(test_size=0.1, seed=1)
tokenizer = AutoTokenizer.from_pretrained(BASE)
model = AutoModelForCausalLM.from_pretrained(BASE)

config = SFTConfig(
    output_dir="out/tramway",
    max_length=512,
    completion_only_loss=True,
    num_train_epochs=3,
    learning_rate=2e-5,
    eval_strategy="steps",
    eval_steps=50,
    seed=1,
)
trainer = SFTTrainer(
    model=model,
    args=config,
    train_dataset=dataset["train"],
    eval_dataset=dataset["test"],
    processing_class=tokenizer,
)
trainer.train()
trainer.save_model()

for row in dataset["test"].select(range(5)):
    inputs = tokenizer(row["prompt"], return_tensors="pt").to(model.device)
    generated = model.generate(**inputs, max_new_tokens=80)
    print(row["completion"], "|", tokenizer.decode(generated[0, inputs["input_ids"].shape[1] :]))
