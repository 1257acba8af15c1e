"""CPU seconds of an answer with tokens guessed from the prompt, beside the same answer without guesses.

    python benchmarks/lookup.py [--sizes 1M 124M] [--tokens 5 10] [--repeats 3]

Weights are random; what is said is not: a constraint allows the reference answer alone, so that guesses are right as
often as for a model that answers rightly. `extract` turns an invented letter into JSON that repeats parts of it,
`revise` says the letter again with one date changed, `free` answers in words of its own. The tokenizer has seen other
text, so names and rare words take several tokens.
Sides alternate in one process with one thread. Prints one JSON line a comparison; medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from plume.generation.engine import Engine
from plume.models import gpt
from plume.models.bundle import Bundle, bundle
from plume.text.template import TEMPLATES
from plume.text.tokenizer import train_tokenizer
from plume.types import Sampling

SIZES = {"1M": (4, 128, 4, 1024), "124M": (12, 768, 12, 50_257)}  # layers, width, heads, vocabulary
LETTER = (
    "Port-Kervenan, le 3 octobre. Chère Maëlle, la cloche de la chapelle Saint-Ronan est revenue de chez le fondeur "
    "Yannig Le Bihan, 14 quai des Goémons ; elle pèse 212 kilos et sonne un la bémol. Nous la montons le samedi 19 à "
    "l’aube, avec le palan de la grue du chantier Treguidel. Apporte « Le Carillonneur » et tes gants. Gwenola Hascoët"
)
TASKS = {
    "extract": json.dumps(
        {
            "lieu": "la chapelle Saint-Ronan",
            "fondeur": "Yannig Le Bihan",
            "adresse": "14 quai des Goémons",
            "poids": "212 kilos",
            "outil": "le palan de la grue du chantier Treguidel",
            "signature": "Gwenola Hascoët",
        },
        ensure_ascii=False,
    ),
    "revise": LETTER.replace("samedi 19", "dimanche 20"),
    "free": "Oui ! Je viendrai tôt, mais sans voiture : mon frère me déposera devant chez vous vers six heures. "
    "Faut-il prévoir du café pour tout ce monde, ou bien quelqu’un s’en occupe déjà ? Bises, et vivement ce jour.",
}
OTHER = (
    "Le gardien du phare descend chaque soir sur le quai, une lampe à la main, et compte les bateaux qui rentrent. ",
    "« Il en manque un », dit-il à la patronne du café ; elle lui sert une soupe et regarde la mer par la fenêtre. ",
    "La pluie tombe sur les toits de la ville haute, le vent pousse les volets, et personne ne sort avant le matin. ",
    "Une lettre est arrivée pour toi : on te demande de venir samedi avec les outils, la corde et de la toile. ",
    '{"nom": "Anne", "ville": "la ville haute", "outils": ["une lampe", "la corde"], "prix": "de la toile"} ',
    "Les enfants de l’école ont peint la barque du vieux Pierre en bleu, et il feint de ne pas la reconnaître. ",
    "On a mis trois heures pour monter le poêle jusqu’à la chambre ; c’est la pièce la plus chaude de la maison. ",
    "Que faut-il prendre pour le voyage ? Du pain, des pommes, un couteau, et de quoi lire dans le train. ",
)


@dataclass
class Only:
    """A constraint that allows one answer, and the grammar of it."""

    ids: tuple[int, ...]
    vocab_size: int
    said: int = 0
    notes: tuple[str, ...] = ()

    @property
    def shortest(self) -> int:
        return len(self.ids)

    def start(self) -> Only:
        return replace(self, said=0)

    def valid(self, text: str) -> bool:
        return bool(text)

    @property
    def accepting(self) -> bool:
        return self.done

    @property
    def done(self) -> bool:
        return self.said == len(self.ids)

    def allowed_V(self) -> Tensor:
        return torch.arange(self.vocab_size) == self.ids[self.said]

    def advance(self, id: int) -> None:  # noqa: ARG002 - there is only one
        self.said += 1

    def shortest_end(self) -> Sequence[int]:
        return self.ids[self.said :]

    def fits(self, id: int, room: int) -> bool:  # noqa: ARG002
        return len(self.ids) - self.said - 1 <= room

    def fork(self) -> Only:
        return replace(self)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--tokens", type=int, nargs="+", default=[5, 10], help="prompt_lookup_num_tokens")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size in options.sizes:
        made = build(*SIZES[size])
        for task in reversed(TASKS):
            for guessed in options.tokens:
                compare(made, size, task, guessed, options.repeats)


def build(layers: int, width: int, heads: int, vocab_size: int) -> Bundle:
    torch.manual_seed(0)
    tokenizer = train_tokenizer("bpe", OTHER, 700)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "dropout": 0.0}
    model = gpt.build({**sizes, "vocab_size": vocab_size, "max_length": 1024})
    return bundle(model, tokenizer, TEMPLATES["raw"], 512)


def compare(made: Bundle, size: str, task: str, guessed: int, repeats: int) -> None:
    engine = Engine(made)
    prompt = made.tokenizer.encode(LETTER)
    grammar = Only(tuple(made.tokenizer.encode(TASKS[task])), made.model.vocab_size)
    sampling = Sampling(max_new_tokens=512)
    sides = {"plume": replace(sampling, prompt_lookup_num_tokens=guessed), "peer": sampling}
    runs = []
    for number in range(repeats):
        run = {}
        for side, settings in sides.items():
            began = time.process_time()
            scope = f"{side} {number}"  # so that nobody finds the prompt read already
            chunks = engine.stream(prompt, settings, grammar=grammar, scope=scope)
            answer = "".join(chunk.text for chunk in chunks)
            run[side] = time.process_time() - began
            if answer != TASKS[task]:
                raise RuntimeError(f"{side} said something else: {answer}")
        runs.append(run)
    plume, peer = (statistics.median(run[side] for run in runs) for side in ("plume", "peer"))
    row = {
        "bench": f"lookup/{size}/{task}/{guessed}",
        "metric": "cpu_seconds",
        "unit": "s",
        "plume": round(plume, 4),
        "peer": round(peer, 4),
        "peer_name": "without guesses",
        "ratio": round(plume / peer, 3),
        "lower_is_better": True,
        "tokens": len(grammar.ids),
        "runs": [{side: round(value, 4) for side, value in run.items()} for run in runs],
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
