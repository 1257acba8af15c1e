# entraînement simple, sans Trainer
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.manual_seed(2)
nom = "bigscience/bloom-560m"
tokenizer = AutoTokenizer.from_pretrained(nom)
model = AutoModelForCausalLM.from_pretrained(nom)
with open("proverbes.txt", encoding="utf-8") as fichier:
    phrases = [ligne.strip() + tokenizer.eos_token for ligne in fichier if ligne.strip()]

chargeur = DataLoader(phrases, batch_size=8, shuffle=True)
optimiseur = torch.optim.AdamW(model.parameters(), lr=2e-5)
for _ in range(3):
    for lot in chargeur:
        batch = tokenizer(lot, padding=True, return_tensors="pt")
        sortie = model(**batch, labels=batch["input_ids"])
        sortie.loss.backward()
        optimiseur.step()
        optimiseur.zero_grad()
model.save_pretrained("proverbes")


def continuer(debut):
    entree = tokenizer(debut, return_tensors="pt")
    return tokenizer.decode(model.generate(**entree, max_new_tokens=20)[0])


print(continuer("Pierre qui roule"))
