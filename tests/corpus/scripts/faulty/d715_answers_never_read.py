from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

data = load_dataset("json", data_files="forge.jsonl", split="train").train_test_split(test_size=0.1, seed=6)
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B"),
    args=SFTConfig(output_dir="forge", num_train_epochs=1, eval_strategy="epoch"),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    processing_class=AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B"),
)
trainer.train()
trainer.save_model()
