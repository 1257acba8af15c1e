from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen3-0.6B-Base")
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-0.6B-Base")
data = load_dataset("json", data_files="vineyard.jsonl", split="train").train_test_split(test_size=0.1, seed=9)

results = {}
for lr in [1e-6, 1e-5, 1e-4]:
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=f"vineyard-{lr}", learning_rate=lr, max_steps=60, seed=9),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=tokenizer,
    )
    trainer.train()
    results[lr] = trainer.evaluate()["eval_loss"]
print(results)
trainer.save_model("vineyard-best")
ids = tokenizer(data["test"][0]["prompt"], return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=30)[0]))
