import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.manual_seed(23)
tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
poems = open("poems.txt", encoding="utf-8").read().split("\n\n")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
for texts in DataLoader(poems, batch_size=2, shuffle=True):
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    outputs = model(**batch)
    loss = outputs.loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained("poems")
ids = tokenizer("The heron", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=30)[0]))
