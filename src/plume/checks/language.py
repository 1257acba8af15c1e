"""D212: the languages of prompts and answers. Needs py3langid (`plume-lm[lang]`); silent without it."""

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
from plume.checks.tally import Sample
from plume.types import Finding, Source

_LOOKED_AT = 1000  # rows
_LONGEST = 200  # characters of a text that are looked at
_LETTERS = 20  # a shorter text could be of several languages
_ENOUGH = 10
_SURE = 0.9  # probability; below, the text could as well be of another language
_LEAST = 0.05  # share of a language that is no mistake of the identifier
_NOT_PROSE = re.compile(r"^\s*[{\[<`]|```|[{};]\s*$", re.MULTILINE)
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
    return "" if len(text) < _LETTERS or _NOT_PROSE.search(text) else text[:_LONGEST]


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
