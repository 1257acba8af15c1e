import json

from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("./jardin")
model = AutoModelForCausalLM.from_pretrained("./jardin")
with open("questions_accentuées.json") as f:
    questions = json.load(f)
for question in questions:
    ids = tokenizer(question, return_tensors="pt")
    print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0]))
