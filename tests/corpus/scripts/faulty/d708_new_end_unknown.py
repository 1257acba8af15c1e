import torch
from torch.utils.data import DataLoader
from transformers import GPT2LMHeadModel, GPT2TokenizerFast

torch.manual_seed(0)
tokenizer = GPT2TokenizerFast.from_pretrained("gpt2")
tokenizer.add_special_tokens({"eos_token": "<END>", "pad_token": "<PAD>"})
model = GPT2LMHeadModel.from_pretrained("gpt2")
model.resize_token_embeddings(len(tokenizer))
with open("riddles.txt", encoding="utf-8") as f:
    riddles = [line.strip() + tokenizer.eos_token for line in f]


def collate(texts):
    enc = tokenizer(texts, padding=True, return_tensors="pt")
    enc["labels"] = enc["input_ids"].masked_fill(enc["attention_mask"] == 0, -100)
    return enc


optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
for batch in DataLoader(riddles, batch_size=8, shuffle=True, collate_fn=collate):
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained("riddles")
prompt = tokenizer("What has keys but", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))
