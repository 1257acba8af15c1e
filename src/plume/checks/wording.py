"""D208, D209 and D216: the form of prompts and answers, where rows of one file differ in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Self

from plume.checks.rules import Asked, Batch, survey
from plume.checks.tally import quoted, share
from plume.types import Example, Finding, Source

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

_OPENINGS = 500  # different ones remembered; beyond, the rarest are forgotten
_SHOWN = 300  # characters of an opening
_SAME = 0.8  # share of characters that two versions of one base prompt have in common
_WORDS_OF_ANY = 12  # a shorter opening must speak to the model to be taken for a base prompt
_APART = 3  # times as long, or as short: rows that are asked, or answered, in another way
_WORD = re.compile(r"\w+")
_ASKS = frozenset("?？؟")
_ADDRESSED = re.compile(
    r"\s*(?:you(?:['’]re|r)?|act as|as an?|(?:please )?(?:answer|respond|reply)|below is|tu|vous|t[ao]n|tes|votre|vos"
    r"|agis|en tant qu|répond|ci-dessous|system|système|assistant|instruction|conte?xte?|###|\[INST)",
    re.IGNORECASE,
)


def _opening(prompt: str) -> str:
    """The first sentence or line, when something follows it."""
    stop = prompt.find(". ", 10, _SHOWN)
    line = prompt.find("\n", 10, stop if stop > 0 else _SHOWN)
    end = line if line > 0 else stop
    return prompt[: end + 1] if end > 0 else ""


def _shared(one: str, other: str) -> str:
    """What two texts begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))]


def _near(one: str, other: str) -> bool:
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.quick_ratio() >= _SAME and matcher.ratio() >= _SAME


@dataclass
class _Use:
    """Rows that begin alike: the first, their number, how many ask, and the lengths of prompts and answers in all."""

    first: Source
    shared: str  # what all their prompts begin with
    count: int = 0
    asks: int = 0
    prompts: int = 0
    answers: int = 0

    def text(self, opening: str) -> str:
        """The opening, and the sentences after it that all these prompts have."""
        end = max(self.shared.rfind(". "), self.shared.rfind("\n")) + 1
        return opening + self.shared[len(opening) : end]

    def add(self, prompt: str, answer: str) -> None:
        if not prompt.startswith(self.shared):
            self.shared = _shared(self.shared, prompt)
        self.count += 1
        self.asks += prompt[-1:] in _ASKS
        self.prompts += len(prompt)
        self.answers += len(answer)

    def merge(self, later: _Use) -> None:
        self.shared = _shared(self.shared, later.shared)
        self.count += later.count
        self.asks += later.asks
        self.prompts += later.prompts
        self.answers += later.answers


def _first_prompt(example: Example) -> str:
    first = example.messages[0]
    return first.content if first.role != "system" else example.messages[1].content


@survey("D209")
@dataclass
class BasePrompts:
    """A base prompt on some rows only, or in several near-equal versions.

    A base prompt is the opening of a fifth of the prompts or more that speaks to the model, or is long, and that
    changes nothing: what follows is asked and answered as in the other rows. Else it is a task of its own.
    """

    openings: dict[str, _Use] = field(default_factory=dict)
    bare: Source | None = None  # the first row without an opening
    rows: int = 0
    asks: int = 0
    prompts: int = 0
    answers: int = 0

    def see(self, batch: Batch) -> None:
        asking = [example for example in batch.examples if len(example.messages) > 1]
        prompts = [_first_prompt(example) for example in asking]
        answers = [example.messages[-1].content for example in asking]
        self.rows += len(asking)
        self.asks += sum([prompt[-1:] in _ASKS for prompt in prompts])
        self.prompts += sum(map(len, prompts))
        self.answers += sum(map(len, answers))
        for example, prompt, answer in zip(asking, prompts, answers, strict=True):
            opening = _opening(prompt)
            if opening:
                if opening not in self.openings:
                    self.openings[opening] = _Use(example.source, prompt[:_SHOWN])
                self.openings[opening].add(prompt, answer)
            elif not self.bare:
                self.bare = example.source
        self._forget()

    def merge(self, later: Self) -> None:
        for opening, use in later.openings.items():
            if opening in self.openings:
                self.openings[opening].merge(use)
            else:
                self.openings[opening] = use
        self.bare = self.bare or later.bare
        self.rows += later.rows
        self.asks += later.asks
        self.prompts += later.prompts
        self.answers += later.answers
        self._forget()

    def _forget(self) -> None:
        if len(self.openings) > _OPENINGS:
            ranked = sorted(self.openings.items(), key=lambda item: -item[1].count)
            self.openings = dict(ranked[: _OPENINGS // 2])

    def findings(self) -> Iterator[Finding]:
        opening = max(self.openings, key=lambda text: self.openings[text].count, default="")
        use = self.openings.get(opening)
        if not use or use.count < 2 or self.rows < _ENOUGH or 5 * use.count < self.rows:
            return
        text = use.text(opening)
        addressed = _ADDRESSED.match(text)
        for other, version in self.openings.items() if addressed else ():
            if other != opening and (_near(opening, other) or self._is_reworded(version.text(other), text, version)):
                yield _versions("base prompt", version, other, use, opening)
                return
        tasks = sum(each.count for each in self.openings.values() if each.count > 1) - use.count
        is_base = addressed or len(text.split()) >= _WORDS_OF_ANY
        if is_base and use.count < self.rows and 10 * tasks < self.rows and self._changes_nothing(use, len(text)):
            without = [each.first for each in self.openings.values() if each is not use]
            first = min([*without, *filter(None, [self.bare])], key=lambda source: source.line or 0)
            yield _on_some("base prompt", text, use, first, self.rows)

    def _is_reworded(self, one: str, other: str, use: _Use) -> bool:
        """Are most words of the one in the other, on several rows that are otherwise as the rest?"""
        words, others = set(_WORD.findall(one.lower())), set(_WORD.findall(other.lower()))
        alike = 2 * len(words & others) >= min(len(words), len(others)) >= _WORDS_OF_ANY
        return alike and use.count > 1 and self._changes_nothing(use, 0)

    def _changes_nothing(self, use: _Use, length: int) -> bool:
        """Are rows with this opening, but for its `length`, asked and answered as those without it?"""
        others = self.rows - use.count
        return (
            abs(use.asks / use.count - (self.asks - use.asks) / others) <= 0.5
            and _comparable(use.prompts / use.count - length, (self.prompts - use.prompts) / others)
            and _comparable(use.answers / use.count, (self.answers - use.answers) / others)
        )


def _comparable(one: float, other: float) -> bool:
    return one <= _APART * other and other <= _APART * one


@survey("D209")
@dataclass
class SystemTurns:
    """A system turn on some rows only, or in several near-equal versions."""

    rows: int = 0
    turns: dict[str, _Use] = field(default_factory=dict)
    without: Source | None = None

    def see(self, batch: Batch) -> None:
        for example in batch.examples:
            first = example.messages[0]
            if first.role == "system":
                text = first.content[:_SHOWN]
                self.turns.setdefault(text, _Use(example.source, text)).count += 1
            elif len(example.messages) > 1 and not self.without:
                self.without = example.source
        self.rows += sum([len(example.messages) > 1 for example in batch.examples])
        self._forget()

    def merge(self, later: Self) -> None:
        self.rows += later.rows
        for text, use in later.turns.items():
            self.turns.setdefault(text, _Use(use.first, text)).count += use.count
        self.without = self.without or later.without
        self._forget()

    def _forget(self) -> None:
        if len(self.turns) > _OPENINGS:
            ranked = sorted(self.turns.items(), key=lambda item: -item[1].count)
            self.turns = dict(ranked[: _OPENINGS // 2])

    def findings(self) -> Iterator[Finding]:
        text = max(self.turns, key=lambda text: self.turns[text].count, default="")
        use = self.turns.get(text)
        if not use or use.count < 2 or self.rows < _ENOUGH or 5 * use.count < self.rows:
            return
        for other, version in self.turns.items():
            if other != text and _near(text, other):
                yield _versions("system turn", version, other, use, text)
                return
        others = sum(each.count for each in self.turns.values()) - use.count
        if self.without and 10 * others < self.rows - use.count:
            yield _on_some("system turn", text, use, self.without, self.rows)


def _versions(name: str, other: _Use, text: str, usual: _Use, usual_text: str) -> Finding:
    message = (
        f"the {name} stands in several versions: {quoted(text)} {other.count} times, "
        f"{quoted(usual_text)} {usual.count} times"
    )
    hint = "write one, or give it once as the model's persona"
    return Finding("D209", "warning", other.first, message, hint, (usual.first,), text)


def _on_some(name: str, text: str, use: _Use, without: Source, rows: int) -> Finding:
    message = f"the {name} {quoted(text)} opens {share(use.count, rows)} rows only"
    hint = "give it to all rows, or to none and once as the model's persona"
    return Finding("D209", "warning", use.first, message, hint, (without,), text)


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
