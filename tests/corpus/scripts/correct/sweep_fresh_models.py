import json
import os

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

CKPT = "gpt2"
TEMPLATE = "<|user|>{q}<|bot|>{a}"
tok = AutoTokenizer.from_pretrained(CKPT)
tok.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<|user|>", "<|bot|>"]})


class QA(torch.utils.data.Dataset):
    def __init__(self, path):
        self.items = []
        with open(path, "r", encoding="utf8") as f:
            for line in f:
                r = json.loads(line)
                enc = tok(TEMPLATE.format(q=r["q"], a=r["a"]) + tok.eos_token, truncation=True, max_length=200)
                self.items.append({k: torch.tensor(v) for k, v in enc.items()})

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def collate(items):
    batch = tok.pad(items, return_tensors="pt")
    batch["labels"] = batch["input_ids"].masked_fill(batch["input_ids"] == tok.pad_token_id, -100)
    return batch


train, dev = QA("train.jsonl"), QA("dev.jsonl")
for lr in (1e-5, 5e-5, 1e-4):
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(CKPT)
    model.resize_token_embeddings(len(tok))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=os.path.join("sweep", str(lr)), learning_rate=lr, num_train_epochs=5),
        train_dataset=train,
        eval_dataset=dev,
        data_collator=collate,
    )
    trainer.train()
    print(lr, trainer.evaluate()["eval_loss"])
    ids = tok(TEMPLATE.format(q="Où est la clé ?", a=""), return_tensors="pt").to(model.device)
    print(tok.decode(model.generate(**ids, max_new_tokens=30)[0]))
