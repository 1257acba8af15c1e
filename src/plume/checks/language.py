"""D212 and D213: the languages of prompts and answers, and whether their small words were taken out.

D212 needs py3langid (`plume-lm[lang]`) and is silent without it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from plume.checks.rules import Batch, survey
from plume.checks.tally import Sample, share
from plume.types import Finding, Source

# --- D212 ----------------------------------------------------------------------------------------

_LOOKED_AT = 1000  # rows
_LONGEST = 200  # characters of a text that are looked at
_LETTERS = 20  # a shorter text could be of several languages
_ENOUGH = 10  # texts before a share says something
_SURE = 0.9  # probability; below, the text could as well be of another language
_LEAST = 0.05  # share of a language that is no mistake of the identifier
_NOT_PROSE = re.compile(r"^\s*[{\[<`]|```|[{}]\s*$|[=()].*;\s*$", re.MULTILINE)
_NAMES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ja": "Japanese",
    "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish",
    "tr": "Turkish", "zh": "Chinese",
}  # fmt: skip


@functools.cache
def _identifier() -> Any:
    langid = importlib.import_module("py3langid.langid")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(_NAMES))  # of 139 languages most are mistakes on a short question
    return identifier


def _prose(text: str) -> str:
    text = text[:_LONGEST]
    return "" if len(text) < _LETTERS or _NOT_PROSE.search(text) else text


@survey("D212")
@dataclass
class Languages:
    """Two languages or more in the prompts or the answers, or answers in another language than their prompts.

    The beginnings of the sampled rows are kept (at most half a megabyte): the identifier is slow to load, and is
    loaded once, at the end.
    """

    sample: Sample[tuple[str, str, Source]] = field(default_factory=lambda: Sample(_LOOKED_AT))

    def see(self, batch: Batch) -> None:
        for line, example in self.sample.rows(batch):
            if len(example.messages) > 1:
                prompt, completion = example.messages[-2].content, example.messages[-1].content
                self.sample.keep(line, (_prose(prompt), _prose(completion), example.source))

    def merge(self, later: Self) -> None:
        self.sample.merge(later.sample)

    def findings(self) -> Iterator[Finding]:
        rows = list(self.sample.kept.values())
        long_enough = max(sum(bool(prompt) for prompt, _, _ in rows), sum(bool(answer) for _, answer, _ in rows))
        if long_enough < _ENOUGH or importlib.util.find_spec("py3langid") is None:
            return
        prompts = [_language(prompt) for prompt, _, _ in rows]
        answers = [_language(answer) for _, answer, _ in rows]
        crossed = sum(bool(a and b and a != b) for a, b in zip(prompts, answers, strict=True))
        both = sum(bool(a and b) for a, b in zip(prompts, answers, strict=True))
        counts = [(name, _counted(found)) for name, found in (("prompts", prompts), ("answers", answers))]
        mixed = any(len(count) > 1 for _, count in counts)
        if not mixed and not (both >= _ENOUGH and crossed > 10 * _LEAST * both):
            return
        said = "; ".join(f"{name}: {_said(count)}" for name, count in counts if count)
        hint = "nothing to do if it is meant; a model speaks the languages of its answers, in these proportions"
        usual = Counter(filter(None, prompts)).most_common(1)
        other = next((i for i, code in enumerate(prompts) if code and usual and code != usual[0][0]), 0)
        yield Finding(
            "D212", "info", rows[other][2], f"several languages in the {len(rows)} rows looked at: {said}", hint
        )


def _language(text: str) -> str:
    if not text:
        return ""
    code, probability = _identifier().classify(text)
    return str(code) if probability >= _SURE else ""


def _counted(found: list[str]) -> Counter[str]:
    """The languages that are more than a few strays."""
    counts = Counter(filter(None, found))
    if counts.total() < _ENOUGH:
        return Counter()
    least = max(3, _LEAST * counts.total())
    return Counter({code: count for code, count in counts.items() if count >= least})


def _said(counts: Counter[str]) -> str:
    parts = [f"{_NAMES[code]} {100 * count / counts.total():.0f} %" for code, count in counts.most_common()]
    return ", ".join(parts)


# --- D213 ----------------------------------------------------------------------------------------

_LISTED_WORDS = """
a an the of to in on at is are was were be been it its this that these those and or but for with from by as not
i you he she we they his her their my your our do does did has have had can will would there which who what
where when how le la les l un une des du de d au aux en et ou où que qui qu dans sur par pour avec sans ce c
cette ces son sa ses mon ma mes ton ta il elle nous vous ils elles je j tu se s ne n pas est sont était sera ont
quel quelle quels quelles comment quand combien y der die das und ist ein eine nicht mit von zu den dem im auf
für sich wie wer wo el los las una unos del al es por con para lo como cómo cuál qué no dónde gli di che è non
per della o os um uma da dos em não com het een van niet op te dat och att det som på är av jeg ikke og er ja ei
w z na nie się że si nu și cu din yang dan itu ini ve bir bu v že
"""  # English, French, then what keeps other languages from being accused
_FUNCTION_WORDS = frozenset(_LISTED_WORDS.split())
_WORD = re.compile(r"[^\W\d_]+")
_FRENCH = "«»àâäæçéèêëîïôöùûüÿœÀÂÆÇÉÈÊËÎÏÔÙÛÜŸŒ°€\u00a0\u202f\u2010-\u2030"
_NO_SENTENCE = re.compile(rf"[{{}}<>=\\|`$]|\w[(\[]|\n.*\n|;\s*$|https?:|[^\x00-\x7f{_FRENCH}]")
_BETWEEN_COMMAS = 3  # words; fewer make a list of names


def _is_bare(text: str, *, least: int) -> bool | None:
    """Has natural language no function word at all? None for what is too short to say, or no prose."""
    words = _WORD.findall(text)
    lower = [word for word in words if word[0].islower()]
    if len(words) < least or 2 * len(lower) < len(words) or _NO_SENTENCE.search(text):
        return None
    if len(words) < _BETWEEN_COMMAS * (text.count(",") + 1):
        return None
    return _FUNCTION_WORDS.isdisjoint(word.lower() for word in words)


@survey("D213")
@dataclass
class StopWords:
    """Answers of five words and more without a single function word, or else questions of four and more.

    The beginnings of the sampled rows are kept, and judged at the end.
    """

    sample: Sample[tuple[str, str, Source]] = field(default_factory=lambda: Sample(_LOOKED_AT))

    def see(self, batch: Batch) -> None:
        for line, example in self.sample.rows(batch):
            if len(example.messages) > 1:
                prompt, completion = example.messages[-2].content, example.messages[-1].content
                self.sample.keep(line, (prompt[:_LONGEST], completion[:_LONGEST], example.source))

    def merge(self, later: Self) -> None:
        self.sample.merge(later.sample)

    def findings(self) -> Iterator[Finding]:
        rows = list(self.sample.kept.values())
        answers = [(_is_bare(completion, least=5), source) for _, completion, source in rows]
        asked = [(_is_bare(prompt, least=4), source) for prompt, _, source in rows if prompt.rstrip().endswith("?")]
        for name, judged, least in (("answers", answers, 0.3), ("questions", asked, 0.6)):
            seen = sum(is_bare is not None for is_bare, _ in judged)
            bare = [source for is_bare, source in judged if is_bare]
            if seen >= _ENOUGH and len(bare) > least * seen:
                message = f"{share(len(bare), seen)} {name} looked at hold no function word (the, of, le, de…)"
                hint = "keep the stop words: a language model needs them to read and to write sentences"
                yield Finding("D213", "warning", bare[0], message, hint, tuple(bare[1:6]))
                return
