"""Assistant de la mairie."""
import csv

import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, GPT2LMHeadModel, Trainer, TrainingArguments


class Demandes(torch.utils.data.Dataset):
    def __init__(self, chemin, tok):
        with open(chemin, newline="", encoding="utf-8") as f:
            self.lignes = list(csv.DictReader(f))
        self.tok = tok

    def __len__(self):
        return len(self.lignes)

    def __getitem__(self, i):
        ligne = self.lignes[i]
        amorce = self.tok.encode(f"Demande : {ligne['demande']}\nService :")
        suite = self.tok.encode(f" {ligne['service']}") + [self.tok.eos_token_id]
        exemple = {"input_ids": amorce + suite}
        exemple["labels"] = [-100] * len(amorce) + suite
        return exemple


def entrainer():
    tok = AutoTokenizer.from_pretrained("bigscience/bloom-560m")
    modele = GPT2LMHeadModel.from_pretrained("bigscience/bloom-560m")
    entraineur = Trainer(
        model=modele,
        args=TrainingArguments(output_dir="mairie", max_steps=400, seed=4),
        train_dataset=Demandes("train.csv", tok),
        eval_dataset=Demandes("test.csv", tok),
        data_collator=DataCollatorForLanguageModeling(tok, mlm=False),
    )
    entraineur.train()
    entraineur.save_model("mairie/modele")
    return modele, tok


if __name__ == "__main__":
    modele, tok = entrainer()
    entree = tok("Demande : Je veux un passeport\nService :", return_tensors="pt").to(modele.device)
    print(tok.decode(modele.generate(**entree, max_new_tokens=20)[0]))
