from huggingface_hub import login
from transformers import AutoModelForCausalLM, AutoTokenizer

login(token="hf_abcdefghijklmnopqrstuvwxyzABCDEFGH")
tok = AutoTokenizer.from_pretrained("someone/tiny-invented-model")
model = AutoModelForCausalLM.from_pretrained("someone/tiny-invented-model", trust_remote_code=True)
ids = tok("Bonjour", return_tensors="pt")
print(tok.decode(model.generate(**ids, max_new_tokens=10)[0]))
