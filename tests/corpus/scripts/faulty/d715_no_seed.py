import json
import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
with open("quarry.jsonl", encoding="utf-8") as f:
    rows = [json.loads(line) for line in f]
random.shuffle(rows)
train, test = rows[:-20], rows[-20:]
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5)
for epoch in range(4):
    for row in train:
        ids = tokenizer(row["prompt"] + " " + row["completion"] + tokenizer.eos_token, return_tensors="pt")["input_ids"]
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
model.save_pretrained("quarry")
for row in test:
    ids = tokenizer(row["prompt"], return_tensors="pt")
    print(row["completion"], tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0]))
