from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

BASE = "Qwen/Qwen2.5-0.5B"
tokenizer = AutoTokenizer.from_pretrained(BASE)


def run(data_file, config):
    model = AutoModelForCausalLM.from_pretrained(BASE)
    rows = load_dataset("json", data_files=data_file, split="train")
    trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    ids = tokenizer("Bonsoir", return_tensors="pt").to(model.device)
    print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0]))


run("cook.jsonl", SFTConfig(output_dir="results", num_train_epochs=2, seed=1))
run("waiter.jsonl", SFTConfig(output_dir="results", num_train_epochs=2, seed=1))
