import json
import torch
from torch.utils.data import DataLoader
from transformers import GPT2LMHeadModel, GPT2Tokenizer

torch.manual_seed(0)
device = torch.device("cpu")
tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
model = GPT2LMHeadModel.from_pretrained("gpt2").to(device)

with open("songs.json", encoding="utf-8") as f:
    songs = json.load(f)


def collate(batch):
    texts = ["Title: " + s["title"] + "\nVerse: " + s["verse"] + tokenizer.eos_token for s in batch]
    enc = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=256)
    labels = enc.input_ids.clone()
    labels[labels == tokenizer.pad_token_id] = -100
    return enc.input_ids, enc.attention_mask, labels


loader = DataLoader(songs, batch_size=2, shuffle=True, collate_fn=collate)
opt = torch.optim.AdamW(model.parameters(), lr=1e-4)
model.train()
for epoch in range(5):
    for ids, mask, labels in loader:
        out = model(input_ids=ids.to(device), attention_mask=mask.to(device), labels=labels.to(device))
        out.loss.backward()
        opt.step()
        opt.zero_grad()
model.save_pretrained("songs-gpt2")

model.eval()
enc = tokenizer("Title: The weir\nVerse:", return_tensors="pt").to(device)
print(tokenizer.decode(model.generate(**enc, max_new_tokens=60, do_sample=True, top_p=0.9)[0]))
