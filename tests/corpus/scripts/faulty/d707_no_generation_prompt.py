from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

name = "HuggingFaceTB/SmolLM2-360M-Instruct"
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name)
rows = load_dataset("json", data_files="chats.jsonl", split="train").train_test_split(test_size=0.05, seed=2)
trainer = SFTTrainer(model=model, args=SFTConfig("chat-out", max_steps=100), train_dataset=rows["train"],
                     eval_dataset=rows["test"], processing_class=tokenizer)
trainer.train()
trainer.save_model()

messages = [{"role": "user", "content": "Which platform for the night train?"}]
ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True).to(model.device)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=60)[0]))
