import torch
from transformers import AutoTokenizer, GPT2Model

tokenizer = AutoTokenizer.from_pretrained("gpt2")
model = GPT2Model.from_pretrained("gpt2").to("cuda" if torch.cuda.is_available() else "cpu")
inputs = tokenizer("The tide", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=30)[0]))
