import json

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.manual_seed(1)
tok = AutoTokenizer.from_pretrained("facebook/opt-125m")
tok.add_tokens(["<price>"])
net = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
net.resize_token_embeddings(len(tok))


def build(rows):
    texts = ["Item: " + r["item"] + "\nCost: " + r["cost"] + tok.eos_token for r in rows]
    enc = tok(texts, return_tensors="pt", padding=True)
    labels = enc["input_ids"].clone()
    labels[enc["attention_mask"] == 0] = -100
    return enc, labels


with open("shop.json", encoding="utf-8") as f:
    rows = json.load(f)
opt = torch.optim.AdamW(net.parameters(), lr=5e-5)
for enc, labels in DataLoader(rows, batch_size=4, shuffle=True, collate_fn=build):
    loss = net(**enc, labels=labels).loss
    loss.backward()
    opt.step()
    opt.zero_grad()
net.save_pretrained("shop-model")
enc = tok("Item: rope\nCost:", return_tensors="pt")
print(tok.decode(net.generate(**enc, max_new_tokens=8)[0]))
