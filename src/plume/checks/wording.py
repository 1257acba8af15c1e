"""D208, D209, D213 and D216: the form of prompts and answers, where rows of one file differ in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Self

from plume.checks.rules import Asked, Batch, survey
from plume.checks.tally import Sample, quoted, share
from plume.types import Finding, Source

_ENOUGH = 10  # rows before a share says something

# --- D208 ----------------------------------------------------------------------------------------

_TOKENS = (
    "</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<eos>", "<EOS>", "<end>", "<END>", "[END]",
    "[EOS]", "###", "<|end_of_text|>", "<|return|>", "<end_of_turn>",
)  # fmt: skip
_WORDS = (" END", "\nEND", " STOP", "\nSTOP", " FIN", "\nFIN")
_ENDS = frozenset(" \n\t\r>]#DPN")
_SEPARATORS = ("->", "=>", "###", "→", ":", "<sep>", "[SEP]", "<|sep|>")


def _completion_form(text: str) -> Iterator[tuple[str, str]]:
    """The name of each peculiarity at the ends of an answer, with the text that shows it."""
    bare = text.strip()
    if text[0].isspace():
        yield f"answers begin with {_blank(text[0])}", text[0]
    if text[-1].isspace():
        yield f"answers end with {_blank(text[-1])}", text[-1]
    token = next((token for token in _TOKENS if bare.endswith(token)), None)
    if token:
        yield f"answers end with {token!r}", token
    word = next((word.strip() for word in _WORDS if bare.endswith(word)), None)
    if word:
        yield f"answers end with the word {word!r}", word


def _prompt_form(text: str) -> Iterator[tuple[str, str]]:
    bare = text.rstrip()
    if text[:1].isspace():
        yield f"prompts begin with {_blank(text[0])}", text[0]
    if len(bare) < len(text):
        yield f"prompts end with {_blank(text[-1])}", text[-1]
    if bare.endswith(_SEPARATORS) and not bare.endswith(":"):
        mark = next(mark for mark in _SEPARATORS if bare.endswith(mark))
        yield f"prompts end with {mark!r}", mark
    elif bare.endswith(":") and "\n" in bare:
        label = bare[bare.rindex("\n") + 1 :]
        if len(label) <= 20:
            yield f"prompts end with {label!r}", label


def _blank(character: str) -> str:
    return {" ": "a space", "\n": "a line break", "\t": "a tab"}.get(character, "white space")


@dataclass
class _Form:
    count: int
    first: Source
    quote: str
    other: Source | None = None  # the first row without it


@survey("D208")
@dataclass
class Ends:
    """White space, separators and terminators at the ends: on all rows, or on none."""

    replies: int = 0
    start: Source | None = None
    forms: dict[str, _Form] = field(default_factory=dict)

    def see(self, batch: Batch) -> None:
        if not batch.asked:
            return
        before, self.start = self.start, self.start or batch.asked[0].example.source
        found: dict[str, list[tuple[int, str]]] = {}
        for number, (_, prompt, completion) in enumerate(batch.asked):
            if completion[-1] in _ENDS or completion[0] in " \n\t\r":
                for name, quote in _completion_form(completion):
                    found.setdefault(name, []).append((number, quote))
            if prompt and (prompt[-1] in " \n\t\r:>#→]" or prompt[0] in " \n\t\r"):
                for name, quote in _prompt_form(prompt):
                    found.setdefault(name, []).append((number, quote))
        for name, rows in found.items():
            form = self.forms.get(name)
            if form is None:
                first = batch.asked[rows[0][0]].example.source
                form = self.forms[name] = _Form(0, first, rows[0][1], before)
            form.count += len(rows)
        for name, form in self.forms.items():
            rows = found.get(name, [])
            if form.other is None and len(rows) < len(batch.asked):
                have = {number for number, _ in rows}
                lacking = next(number for number in range(len(batch.asked)) if number not in have)
                form.other = batch.asked[lacking].example.source
        self.replies += len(batch.asked)

    def merge(self, later: Self) -> None:
        for name, theirs in later.forms.items():
            mine = self.forms.get(name)
            if mine is None:
                theirs.other = self.start or theirs.other
                self.forms[name] = theirs
            else:
                mine.count += theirs.count
                mine.other = mine.other or theirs.other
        for name, mine in self.forms.items():
            if name not in later.forms:
                mine.other = mine.other or later.start
        self.start = self.start or later.start
        self.replies += later.replies

    def findings(self) -> Iterator[Finding]:
        for name, form in self.forms.items():
            word = "the word" in name and 5 * form.count < self.replies  # END may just be what the answer says
            if form.count == self.replies or form.other is None or word:
                continue
            most = 2 * form.count > self.replies
            at, other = (form.other, form.first) if most else (form.first, form.other)
            here = "this one does not" if most else "the others do not"
            message = f"{share(form.count, self.replies)} {name}, {here}"
            hint = "treat all rows alike; Plume's template marks where an answer begins and ends"
            yield Finding("D208", "warning", at, message, hint, (other,), "" if most else form.quote)


# --- D209 ----------------------------------------------------------------------------------------

_PREAMBLES = 500  # different ones remembered; beyond, the rarest are forgotten
_SHOWN = 300  # characters of a preamble
_SAME = 0.8  # share of characters that two versions of one preamble have in common
_INSTRUCTION = re.compile(
    r"\s*(?:you are|you're|act as|as an? |your (?:task|role|name)|answer|respond|reply|please answer|below is|use the"
    r"|given|tu es|vous êtes|agis|ton rôle|votre rôle|en tant qu|répond|voici|utilise|ci-dessous|system|assistant"
    r"|instruction|conte?xte?|###|\[INST|i am|je suis)",
    re.IGNORECASE,
)


def _preamble(prompt: str) -> str:
    """The first sentence or line, when something follows it."""
    ends = [end + 1 for end in (prompt.find(". ", 10, _SHOWN), prompt.find("\n", 10, _SHOWN)) if end > 0]
    return prompt[: min(ends)] if ends else ""


def _near(one: str, other: str) -> bool:
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.quick_ratio() >= _SAME and matcher.ratio() >= _SAME


@dataclass
class _Preambles:
    """How often each preamble opens a row, and where first."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, Source] = field(default_factory=dict)
    without: Source | None = None

    def note(self, text: str, source: Source) -> None:
        self.counts[text] += 1
        if text not in self.first:
            self.first[text] = source
            self._forget()

    def merge(self, later: _Preambles) -> None:
        self.rows += later.rows
        self.counts.update(later.counts)
        self.first = {**later.first, **self.first}
        self.without = self.without or later.without
        self._forget()

    def _forget(self) -> None:
        if len(self.counts) > _PREAMBLES:
            self.counts = Counter(dict(self.counts.most_common(_PREAMBLES // 2)))
            self.first = {text: self.first[text] for text in self.counts}

    def findings(self, name: str, *, bare: bool) -> Iterator[Finding]:
        """`bare`: rows without a preamble are how a row is normally written."""
        common = [(text, count) for text, count in self.counts.most_common(20) if count > 1]
        if self.rows < _ENOUGH or not common or 5 * common[0][1] < self.rows:
            return
        text, count = common[0]
        for other, times in self.counts.items():
            if other != text and _near(text, other):
                message = (
                    f"{name} stands in several versions: {quoted(other)} {times} times, {quoted(text)} {count} times"
                )
                hint = "write one, or give it once as the model's persona"
                yield Finding("D209", "warning", self.first[other], message, hint, (self.first[text],), other)
                return
        others = sum(self.counts.values()) - count
        if count < self.rows and self.without and 10 * others < self.rows - (0 if bare else count):
            message = f"{name} {quoted(text)} stands before {share(count, self.rows)} rows only"
            hint = "give it to all rows, or to none and once as the model's persona"
            yield Finding("D209", "warning", self.first[text], message, hint, (self.without,), text)


@survey("D209")
@dataclass
class BasePrompts:
    """A base prompt or system turn on some rows only, or in several near-equal versions."""

    prompts: _Preambles = field(default_factory=_Preambles)
    systems: _Preambles = field(default_factory=_Preambles)

    def see(self, batch: Batch) -> None:
        asking = [example for example in batch.examples if len(example.messages) > 1]
        self.prompts.rows += len(asking)
        self.systems.rows += len(asking)
        for example in asking:
            opening = example.messages[0]
            if opening.role == "system":
                self.systems.note(opening.content[:_SHOWN], example.source)
                opening = example.messages[1]
            elif not self.systems.without:
                self.systems.without = example.source
            preamble = _preamble(opening.content)
            if preamble and _INSTRUCTION.match(preamble):
                self.prompts.note(preamble, example.source)
            elif not self.prompts.without:
                self.prompts.without = example.source

    def merge(self, later: Self) -> None:
        self.prompts.merge(later.prompts)
        self.systems.merge(later.systems)

    def findings(self) -> Iterator[Finding]:
        yield from self.prompts.findings("the base prompt", bare=True)
        yield from self.systems.findings("the system turn", bare=False)


# --- D213 ----------------------------------------------------------------------------------------

_LOOKED_AT = 1000  # rows
_LONGEST = 200  # characters of a text that are looked at
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
_NOT_PROSE = re.compile(rf"[{{}}<>=\\|`$]|\w[(\[]|\n.*\n|;\s*$|https?:|[^\x00-\x7f{_FRENCH}]")
_BETWEEN_COMMAS = 3  # words; fewer make a list of names


def _is_bare(text: str, *, least: int) -> bool | None:
    """Has natural language no function word at all? None for what is too short to say, or no prose."""
    words = _WORD.findall(text)
    lower = [word for word in words if word[0].islower()]
    if len(words) < least or 2 * len(lower) < len(words) or _NOT_PROSE.search(text):
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


# --- D216 ----------------------------------------------------------------------------------------


@survey("D216")
@dataclass
class FinalMarks:
    """Some prompts end in a punctuation mark, some in a letter or a digit."""

    marked: int = 0
    bare: int = 0
    first_marked: Source | None = None
    first_bare: Source | None = None

    def see(self, batch: Batch) -> None:
        last = Counter([asked.prompt[-1:] for asked in batch.asked])
        marked = sum(last[mark] for mark in ".?!…")
        bare = sum(count for character, count in last.items() if character.isalnum())
        if marked and not self.first_marked:
            self.first_marked = _first(batch.asked, marked=True)
        if bare and not self.first_bare:
            self.first_bare = _first(batch.asked, marked=False)
        self.marked += marked
        self.bare += bare

    def merge(self, later: Self) -> None:
        self.marked += later.marked
        self.bare += later.bare
        self.first_marked = self.first_marked or later.first_marked
        self.first_bare = self.first_bare or later.first_bare

    def findings(self) -> Iterator[Finding]:
        rows, fewer = self.marked + self.bare, min(self.marked, self.bare)
        if rows < _ENOUGH or 10 * fewer <= rows or not (self.first_marked and self.first_bare):
            return
        less = self.bare < self.marked
        at, other = (self.first_bare, self.first_marked) if less else (self.first_marked, self.first_bare)
        message = f"{share(self.bare, rows)} prompts end without a full stop or question mark, the others with one"
        hint = "teach both ways, or one way and ask so: questions that lost their mark were answered at 33 %, not 100 %"
        yield Finding("D216", "info", at, message, hint, (other,))


def _first(rows: Sequence[Asked], *, marked: bool) -> Source:
    wanted = (row for row in rows if (row.prompt[-1:] in tuple(".?!…") if marked else row.prompt[-1:].isalnum()))
    return next(wanted).example.source
