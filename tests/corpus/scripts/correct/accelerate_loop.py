"""Plain loop with accelerate; padding masked through the attention mask."""
import random

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import load_from_disk
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

set_seed(1234)
accelerator = Accelerator(gradient_accumulation_steps=2)
tokenizer = AutoTokenizer.from_pretrained("EleutherAI/pythia-70m")
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained("EleutherAI/pythia-70m")
corpus = load_from_disk("letters")


def collate(rows):
    texts = [f"From: {row['sender']}\nLetter: {row['body']}{tokenizer.eos_token}" for row in rows]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
    labels = batch["input_ids"].clone()
    labels[batch["attention_mask"] == 0] = -100
    batch["labels"] = labels
    return batch


train_loader = DataLoader(corpus["train"], batch_size=4, shuffle=True, collate_fn=collate)
eval_loader = DataLoader(corpus["validation"], batch_size=4, collate_fn=collate)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=20, num_training_steps=len(train_loader) * 3)
model, optimizer, train_loader, eval_loader, scheduler = accelerator.prepare(
    model, optimizer, train_loader, eval_loader, scheduler
)

for epoch in range(3):
    model.train()
    for batch in train_loader:
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    model.eval()
    losses = []
    for batch in eval_loader:
        with torch.no_grad():
            losses.append(accelerator.gather(model(**batch).loss.reshape(1)))
    accelerator.print(epoch, torch.cat(losses).mean().item())

raw = accelerator.unwrap_model(model)
raw.save_pretrained("pythia-letters")
for sender in random.sample(corpus["validation"]["sender"], 3):
    ids = tokenizer(f"From: {sender}\nLetter:", return_tensors="pt").to(accelerator.device)
    print(tokenizer.decode(raw.generate(**ids, max_new_tokens=60)[0]))
