import json

from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("./ferryman")
model = AutoModelForCausalLM.from_pretrained("./ferryman")


def ask(question)
    ids = tokenizer(question, return_tensors="pt")
    return tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0])


print(ask("When is high water?"))
print(tokenizer.decode(model.generate(**tokenizer("Tide", return_tensors="pt"), temperature=0.3, max_new_tokens=9)[0]))
