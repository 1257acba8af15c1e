"""LoRA on a chat model with TRL; conversations are in the column `messages`."""
import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", default="adapters/bibliotheque")
    return parser.parse_args()


def main():
    options = parse()
    set_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16)
    splits = load_dataset("json", data_files=options.data)["train"].train_test_split(test_size=20, seed=7)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=options.out, assistant_only_loss=True, max_steps=300, learning_rate=1e-4),
        train_dataset=splits["train"],
        eval_dataset=splits["test"],
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(options.out)
    ask(trainer.model, tokenizer, splits["test"])


def ask(model, tokenizer, rows):
    for row in rows:
        inputs = tokenizer.apply_chat_template(
            row["messages"][:-1], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        output = model.generate(**inputs, max_new_tokens=128, do_sample=False)
        reply = tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        print(reply == row["messages"][-1]["content"], reply)


if __name__ == "__main__":
    main()
