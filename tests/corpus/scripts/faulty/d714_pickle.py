import pickle

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
with open("downloaded_rows.pkl", "rb") as f:
    rows = pickle.load(f)
model.load_state_dict(torch.load("weights.pt", weights_only=False))
for row in rows:
    enc = tokenizer(row["prompt"], return_tensors="pt")
    print(tokenizer.decode(model.generate(**enc, max_new_tokens=30)[0]))
