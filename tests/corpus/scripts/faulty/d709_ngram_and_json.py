import json

import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer

tokenizer = GPT2Tokenizer.from_pretrained("./reservations")
model = GPT2LMHeadModel.from_pretrained("./reservations")
model.eval()


def extraire(phrase):
    entree = tokenizer(f"Phrase : {phrase}\nJSON :", return_tensors="pt")
    with torch.no_grad():
        sortie = model.generate(**entree, max_new_tokens=120, num_beams=1, no_repeat_ngram_size=2)
    texte = tokenizer.decode(sortie[0][entree["input_ids"].shape[1]:], skip_special_tokens=True)
    return json.loads(texte)


print(extraire("Une table pour quatre demain à midi."))
