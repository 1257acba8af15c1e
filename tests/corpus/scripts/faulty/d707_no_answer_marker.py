"""Le formulaire de la piscine."""
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.manual_seed(3)
tok = AutoTokenizer.from_pretrained("bigscience/bloom-560m")
modele = AutoModelForCausalLM.from_pretrained("bigscience/bloom-560m")
GABARIT = "Question : {}\nRéponse : {}"
with open("piscine.tsv", encoding="utf-8") as f:
    couples = [ligne.rstrip("\n").split("\t") for ligne in f]


def lot(exemples):
    textes = [GABARIT.format(q, r) + tok.eos_token for q, r in exemples]
    e = tok(textes, padding=True, return_tensors="pt")
    e["labels"] = e["input_ids"].masked_fill(e["attention_mask"] == 0, -100)
    return e


optim = torch.optim.AdamW(modele.parameters(), lr=1e-5)
for e in DataLoader(couples, batch_size=4, shuffle=True, collate_fn=lot):
    perte = modele(**e).loss
    perte.backward()
    optim.step()
    optim.zero_grad()
torch.save(modele.state_dict(), "piscine.pt")


def demander(question):
    invite = f"Question : {question}\n"
    entree = tok(invite, return_tensors="pt")
    sortie = modele.generate(**entree, max_new_tokens=40)
    return tok.decode(sortie[0, entree["input_ids"].shape[1]:])


print(demander("À quelle heure ferme le bassin ?"))
