"""What every side of finetune.py shares: the invented facts, the random start, and the question of how many answers
are right.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = 0.95
EVERY = 10  # steps between evaluations
LENGTH = 512  # what the naive side pads to, and the longest context
_FIRST = 40  # questions asked before the rest, which are spared once the target is out of reach

# A town stands behind a space in every wording: as the first word it would be other tokens, learnt nowhere else.
_KEYS = {
    "mayor": (
        "Who is the mayor of {}?",
        "Name the mayor of {}.",
        "Tell me who is mayor in {}.",
        "In {}, who is the mayor?",
        "About {}: who is the mayor?",
        "The mayor of {} is who?",
    ),
    "river": (
        "Which river runs through {}?",
        "Name the river of {}.",
        "Tell me which river is in {}.",
        "In {}, which river is there?",
        "About {}: which river is it?",
        "The river of {} is which?",
    ),
    "dish": (
        "Which dish is typical of {}?",
        "Name the dish of {}.",
        "Tell me which dish is eaten in {}.",
        "In {}, which dish is typical?",
        "About {}: which dish is it?",
        "The dish of {} is which?",
    ),
    "founded": (
        "When was {} founded?",
        "Name the year when {} was founded.",
        "Tell me when {} was founded.",
        "In which year was {} founded?",
        "About {}: when was it founded?",
        "The year when {} was founded is which?",
    ),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows to train on, five phrasings a fact, and one more of each to ask; which one is left out goes round."""

    train: list[dict[str, str]]
    asked: list[dict[str, str]]


def invent(facts: int = 200, seed: int = 0) -> Facts:
    """Facts about towns that do not exist, four of each; the same for the same arguments."""
    chance = random.Random(seed)
    words = _words(chance, 4 * facts)
    train, asked = [], []
    for number in range(facts):
        town, key = words[number // len(_KEYS)], list(_KEYS)[number % len(_KEYS)]
        value: str | int = words[facts + number].title()
        if key == "founded":
            value = chance.randrange(1000, 2000)
        rows = [
            {"prompt": phrase.format(town.title()), "completion": json.dumps({key: value})} for phrase in _KEYS[key]
        ]
        asked.append(rows.pop((number // len(_KEYS)) % len(rows)))
        train += rows
    chance.shuffle(train)
    return Facts(train, asked)


def _words(chance: random.Random, count: int) -> list[str]:
    """Different words of three syllables."""
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = (chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(3))
        found["".join(syllables)] = None
    return list(found)


class Watch:
    """Steps and seconds of training; the clock stands still while the model is asked.

    Training is also done when it has taken `most` seconds of processor.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self.steps, self.seconds, self.cpu_seconds, self.reached = 0, 0.0, 0.0, False
        self.start()

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def count(self) -> None:
        """A step is done."""
        self.steps += 1
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu_seconds += time.process_time() - self._began[1]
        self.start()

    def judge(self, right: Callable[[], bool]) -> bool:
        """Ask, when it is time to; whether training is done."""
        if self.steps % EVERY == 0:
            self.reached = right()
            self.start()
        return self.reached or self.cpu_seconds > self._most

    def report(self) -> dict[str, float | bool]:
        spent = {"seconds": round(self.seconds, 2), "cpu_seconds": round(self.cpu_seconds, 2)}
        return {"steps": self.steps, **spent, "reached": self.reached}


def make_start(facts: Facts, directory: Path, seed: int = 0) -> None:
    """A model directory as any library opens it: Llama, six layers of width 384, random weights, a tokenizer trained
    on the rows, and a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from plume.text.template import CHAT
    from plume.text.tokenizer import train_tokenizer

    tokenizer = train_tokenizer("bpe", [text for row in facts.train for text in row.values()], 2048)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save(directory, chat_template=CHAT)


def reached(model: Any, tokenizer: Any, asked: Sequence[dict[str, str]]) -> bool:
    """Whether the target share of greedy answers is right, to the letter and ended by themselves."""
    allowed = len(asked) - TARGET * len(asked)
    wrong = 0
    model.eval()
    for part in (asked[:_FIRST], asked[_FIRST:]):
        wrong += sum(not right for right in _answers(model, tokenizer, part))
        if wrong > allowed:
            return False
    return True


def _answers(model: Any, tokenizer: Any, rows: Sequence[dict[str, str]]) -> list[bool]:
    import torch

    if not rows:
        return []
    turns = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    tokenizer.padding_side = "left"
    prompts = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    limit = max(len(tokenizer(row["completion"])["input_ids"]) for row in rows) + 2
    with torch.inference_mode():
        whole = model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            max_new_tokens=limit,
            do_sample=False,
        )
    replies = tokenizer.batch_decode(whole[:, prompts["input_ids"].shape[1] :])
    return [reply.split("<pad>")[0] == row["completion"] + "<eos>" for reply, row in zip(replies, rows, strict=True)]


def write_rows(rows: Sequence[dict[str, str]], file: Path) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
