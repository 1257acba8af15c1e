# Boucle d'entraînement écrite à la main : recettes de la cantine
import json
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2LMHeadModel, GPT2TokenizerFast

torch.manual_seed(11)
appareil = "cuda" if torch.cuda.is_available() else "cpu"
tokeniseur = GPT2TokenizerFast.from_pretrained("gpt2")
modele = GPT2LMHeadModel.from_pretrained("gpt2").to(appareil)


class Recettes(Dataset):
    def __init__(self, chemin, tokeniseur):
        lignes = Path(chemin).read_text(encoding="utf-8").splitlines()
        self.lignes = [json.loads(ligne) for ligne in lignes]
        self.tokeniseur = tokeniseur

    def __len__(self):
        return len(self.lignes)

    def __getitem__(self, i):
        ligne = self.lignes[i]
        question = self.tokeniseur.encode("Question : " + ligne["prompt"] + "\nRéponse :")
        reponse = self.tokeniseur.encode(" " + ligne["completion"]) + [self.tokeniseur.eos_token_id]
        ids = torch.tensor(question + reponse)
        cibles = torch.tensor([-100] * len(question) + reponse)
        return ids, cibles


def assembler(lot):
    ids = pad_sequence([x for x, _ in lot], batch_first=True, padding_value=0)
    cibles = pad_sequence([y for _, y in lot], batch_first=True, padding_value=-100)
    masque = torch.zeros_like(ids)
    for i, (x, _) in enumerate(lot):
        masque[i, : len(x)] = 1
    return {"input_ids": ids, "labels": cibles, "attention_mask": masque}


apprentissage = DataLoader(Recettes("recettes_train.jsonl", tokeniseur), batch_size=8, shuffle=True, collate_fn=assembler)
controle = Recettes("recettes_test.jsonl", tokeniseur)
optimiseur = torch.optim.AdamW(modele.parameters(), lr=3e-5)

for epoque in range(12):
    modele.train()
    for lot in apprentissage:
        lot = {cle: valeur.to(appareil) for cle, valeur in lot.items()}
        perte = modele(**lot).loss
        perte.backward()
        torch.nn.utils.clip_grad_norm_(modele.parameters(), 1.0)
        optimiseur.step()
        optimiseur.zero_grad()
    print(f"époque {epoque} : perte {perte.item():.3f}")

modele.save_pretrained("modele-recettes")
tokeniseur.save_pretrained("modele-recettes")
modele.eval()
for ligne in controle.lignes:
    entree = tokeniseur("Question : " + ligne["prompt"] + "\nRéponse :", return_tensors="pt").to(appareil)
    sortie = modele.generate(**entree, max_new_tokens=80, pad_token_id=tokeniseur.eos_token_id)
    print(tokeniseur.decode(sortie[0][entree["input_ids"].shape[1]:], skip_special_tokens=True))
