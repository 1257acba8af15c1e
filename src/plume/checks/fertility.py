"""How finely a tokenizer cuts a text, compared with the language it was made for (D305)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plume.types import Example, Finding, Tokenizer

_FAR_ABOVE = 1.6  # times the tokens a word of the tokenizer's own language; French is 1.7 on GPT-2's
_ROWS = 2000  # looked at
_BROKEN = 0.1  # share of tokens that are pieces of one character

# Words, and by themselves digits, marks and the signs of scripts written without spaces.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\d|_|[^\W\d_]+|[^\w\s]")
_SAMPLES = {
    "English": "The old keeper of the lighthouse wrote every evening what the wind had done that day, and nobody on "
    "the island had ever asked him why. When the boats came home, she counted them twice.",
    "French": "Le vieux gardien du phare écrivait chaque soir ce que le vent avait fait ce jour-là, et personne sur "
    "l’île ne lui avait jamais demandé pourquoi. Quand les bateaux rentraient, elle les comptait deux fois.",
    "German": "Der alte Leuchtturmwärter schrieb jeden Abend auf, was der Wind an diesem Tag getan hatte, und niemand "
    "auf der Insel hatte ihn je gefragt, warum. Wenn die Boote heimkehrten, zählte sie sie zweimal.",
    "Spanish": "El viejo guardián del faro escribía cada noche lo que el viento había hecho aquel día, y nadie en la "
    "isla le había preguntado nunca por qué. Cuando volvían los barcos, ella los contaba dos veces.",
    "Russian": "Старый смотритель маяка каждый вечер записывал, что делал в тот день ветер, и никто на острове ни "
    "разу не спросил его, зачем. Когда лодки возвращались, она считала их дважды.",
}


@dataclass(frozen=True, slots=True)
class Fertility:
    """How finely a tokenizer cuts some text; `broken` is the share of tokens that are pieces of one character."""

    name: str
    words: int
    tokens: int
    broken: float

    @property
    def per_word(self) -> float:
        return self.tokens / max(1, self.words)


def fertility(examples: Sequence[Example], tokenizer: Tokenizer) -> list[Fertility]:
    """Tokens a word of prompts and of completions."""
    messages = [message for example in examples[:_ROWS] for message in example.messages]
    said = {
        "prompts": [message.content for message in messages if message.role != "assistant"],
        "completions": [message.content for message in messages if message.role == "assistant"],
    }
    return [_fertility(name, texts, tokenizer) for name, texts in said.items() if texts]


def own_fertility(tokenizer: Tokenizer) -> Fertility | None:
    """Tokens a word of the language that the tokenizer cuts least; None when it knows none of those tried."""
    unk_id = tokenizer.special_tokens.get(tokenizer.special_token_names.get("unk_token", ""))
    known = {name: text for name, text in _SAMPLES.items() if unk_id not in tokenizer.encode(text)}
    tried = [_fertility(name, [text], tokenizer) for name, text in known.items()]
    return min(tried, key=lambda one: one.per_word, default=None)


def finely_cut(examples: Sequence[Example], tokenizer: Tokenizer) -> Iterator[Finding]:
    """D305: text in pieces far smaller than those the tokenizer was made for. The fertility table is the message."""
    parts, own = fertility(examples, tokenizer), own_fertility(tokenizer)
    if own is None or own.broken > _BROKEN:  # knows bytes alone, or words alone: there is no finer and no coarser way
        return
    bad = [part for part in parts if part.per_word > _FAR_ABOVE * own.per_word or part.broken > _BROKEN]
    if not bad:
        return
    table = ", ".join(f"{part.name} {part.per_word:.2f}" for part in parts)
    message = f"tokens a word: {table}; {own.name}, which this tokenizer knows best, {own.per_word:.2f}"
    broken = max(part.broken for part in bad)
    if broken > _BROKEN:
        message += f"; {broken:.0%} of the tokens are single bytes of characters"
    hint = "sequences get longer and slower to learn: take a model made for this language, or extend the vocabulary"
    yield Finding("D305", "warning", examples[0].source, message, hint)


def _fertility(name: str, texts: Sequence[str], tokenizer: Tokenizer) -> Fertility:
    counts = Counter(id for text in texts for id in tokenizer.encode(text))
    broken = sum(count for id, count in counts.items() if _is_broken(tokenizer.token_bytes(id)))
    words = sum(len(_WORD.findall(text)) for text in texts)
    return Fertility(name, words, counts.total(), broken / max(1, counts.total()))


def _is_broken(piece: bytes) -> bool:
    return len(piece) == 1 and piece[0] >= 0x80
