import json

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.manual_seed(17)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
pairs = [json.loads(line) for line in open("market.jsonl", encoding="utf-8")]


def collate(rows):
    enc = tokenizer([f"Ask: {r['q']}\nSay: {r['a']}{tokenizer.eos_token}" for r in rows], padding=True, return_tensors="pt")
    enc["labels"] = torch.where(enc["attention_mask"] == 1, enc["input_ids"], torch.tensor(-100))
    return enc


train_loader = DataLoader(pairs, batch_size=8, shuffle=True, collate_fn=collate)
val_loader = DataLoader(pairs, batch_size=8, collate_fn=collate)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for epoch in range(10):
    model.train()
    for batch in train_loader:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        print(epoch, sum(model(**batch).loss.item() for batch in val_loader) / len(val_loader))
model.save_pretrained("market")
ids = tokenizer("Ask: price of leeks?\nSay:", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0]))
