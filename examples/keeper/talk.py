# ruff: noqa: SIM905
"""Writes 1,500 invented talks with the keeper of a lighthouse, one a line: `python talk.py talk.jsonl`.

Who learns them can say again, turns later, what name and town it was told, and who its persona says that it is.
"""

import json
import random
import sys
from pathlib import Path

NAMES = (
    "Maëlle Louis Inès Gaël Nora Émile Zoé Théo Alix Rémi Salomé Jules Anaïs Côme Lou Hugo Agathe Félix Mina Basile "
    "Clara Noé Ève Loïc Rose Axel Diane Malo Elsa Yann"
).split()
TOWNS = "Brest Ézour Lisbonne Gand Oran Turin Tunis Porto Dinan Séville Namur Cork Bergen Gênes Nantes Riga".split()
PERSONAS = {"fr": "Tu es {p}, qui garde le phare.", "en": "You are {p}, who keeps the lighthouse."}
TURNS = {
    "fr": {
        "name": (["Je m’appelle {n}.", "Mon nom est {n}.", "Moi, c’est {n}."], "Enchanté, {n}."),
        "town": (["J’habite à {v}.", "Je vis à {v}.", "Je viens de {v}."], "{v}, c’est une belle ville."),
        "name?": (
            ["Comment je m’appelle ?", "Quel est mon nom ?", "Tu te souviens de mon nom ?"],
            "Tu t’appelles {n}.",
        ),
        "town?": (
            ["Où est-ce que j’habite ?", "D’où est-ce que je viens ?", "Dans quelle ville je vis ?"],
            "Tu vis à {v}.",
        ),
        "who?": (["Qui es-tu ?", "Comment tu t’appelles ?", "C’est quoi, ton nom ?"], "Je suis {p}."),
    },
    "en": {
        "name": (["My name is {n}.", "I am {n}.", "I’m called {n}."], "Nice to meet you, {n}."),
        "town": (["I live in {v}.", "My home is in {v}.", "I come from {v}."], "{v} is a fine town."),
        "name?": (["What is my name?", "Who am I?", "Do you remember my name?"], "Your name is {n}."),
        "town?": (["Where do I live?", "Where do I come from?", "In which town do I live?"], "You live in {v}."),
        "who?": (["Who are you?", "What is your name?", "And your name?"], "I am {p}."),
    },
}


def talk(chance: random.Random) -> list[dict[str, str]]:
    """Something is told first, and asked again in any order; now and then the order is mixed."""
    language = chance.choice(["fr", "en"])
    name, persona = chance.sample(NAMES, 2)
    said = {"n": name, "p": persona, "v": chance.choice(TOWNS)}
    messages = []
    if known := chance.random() < 0.7:
        messages.append({"role": "system", "content": PERSONAS[language].format(**said)})
    told = [kind for kind in ("name", "town") if chance.random() < 0.8] or ["name"]
    chance.shuffle(told)
    asked = [f"{kind}?" for kind in ("name", "town") if kind in told] + ["who?"] * known
    chance.shuffle(asked)
    order = told + asked
    if chance.random() < 0.3:
        chance.shuffle(order)
    before = {"who"}
    for kind in order:
        if kind.endswith("?") and kind[:-1] not in before:
            continue
        before.add(kind)
        questions, answer = TURNS[language][kind]
        messages.append({"role": "user", "content": chance.choice(questions).format(**said)})
        messages.append({"role": "assistant", "content": answer.format(**said)})
    return messages


if __name__ == "__main__":
    chance = random.Random(5)
    rows = (json.dumps({"messages": talk(chance)}, ensure_ascii=False) for _ in range(1500))
    Path(sys.argv[1]).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
