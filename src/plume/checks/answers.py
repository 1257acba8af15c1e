"""D206, D207 and D214: answers that echo, that ask back, or that are all the same."""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy

from plume.checks.rules import Asked, Batch, rule, survey
from plume.checks.tally import Tally, quoted, share
from plume.types import Finding, Source

_ENOUGH = 10  # answers before a share says something

# --- D206 ----------------------------------------------------------------------------------------

_ECHO = 12  # a shorter prompt may well begin its answer: Bonjour
_SPEAKERS = ("User", "Human", "Utilisateur", "Utilisatrice", "Question", "Prompt", "Instruction", "Q")
_SPEAKER = rf"(?:{'|'.join(_SPEAKERS)})[ \u00a0\u202f]?:"
_SPEAKER_BACKWARDS = re.compile(  # begins with the colon, so that a search is one for colons
    ":(?<=[nrteQ \u00a0\u202f]:)(?:" + "|".join(f"(?<={name}:)|(?<={name}[ \u00a0\u202f]:)" for name in _SPEAKERS) + ")"
)
_HEADING = r"###[ ]?(?:Instruction|Input|Response|Question|User|Human|Assistant|Réponse|Utilisateur)\b"
_TURN = r"<\|(?:im_start|user|assistant|system|start_header_id)\|>|\[/?INST\]"
_RUNS_ON = re.compile(rf"(?:\n\s*|[.!?»\"}}\]] +){_SPEAKER}|(?:\A|\n)\s*{_HEADING}|{_TURN}")
_SIGNS = (("#", "###"), ("<", "<|"), ("]", "INST]"))  # one character is found faster than several
_MEANT = re.compile(
    r"\b(?:faq|quiz|qcm|dialog(?:ue)?s?|conversations?|interviews?|entretien|exam(?:en)?|exercises?|exercices?|questions"
    r"|script|chat|transcripts?|transcri\w+|prompts?|template|format)\b",
    re.IGNORECASE,
)


@rule("D206")
def echoes(batch: Batch) -> Iterator[Finding]:
    """An answer that begins with its question, or goes on to the next one."""
    for asked in [asked for asked in batch.asked if asked[1] < "!" or asked[2] < "!" or asked[1][0] == asked[2][0]]:
        yield from _echo(asked)  # a text below "!" begins with a blank, or is empty
    text = batch.text
    if any(one in text and sign in text for one, sign in _SIGNS) or _SPEAKER_BACKWARDS.search(text):
        for asked in batch.asked:
            yield from _runs_on(asked)


def _echo(asked: Asked) -> Iterator[Finding]:
    prompt, completion = asked.prompt.strip(), asked.completion.strip()
    if not completion.startswith(prompt) or len(prompt) < _ECHO or " " not in prompt:
        return
    if completion[len(prompt) :][:1].isalnum():
        return
    source, quote = asked.example.source, asked.prompt.strip()[:60]
    if completion == prompt:
        yield Finding("D206", "warning", source, "the answer is the question itself", "write the answer", quote=quote)
    else:
        message = f"the answer begins by repeating the question {quoted(prompt)}"
        yield Finding("D206", "warning", source, message, "keep what follows it", quote=quote)


def _runs_on(asked: Asked) -> Iterator[Finding]:
    match = _RUNS_ON.search(asked.completion)
    if match and not _MEANT.search(asked.prompt):
        found = match.group().strip(' \n.!?»"}]') if "INST" not in match.group() else match.group()
        message = f"the answer goes on after its end: it holds {found!r}, the start of another turn"
        hint = "cut the answer before it"
        yield Finding("D206", "warning", asked.example.source, message, hint, quote=found)


# --- D207 ----------------------------------------------------------------------------------------

_ASKS = ("?", "？", "؟")
_MAY_ASK = frozenset((*_ASKS, " ", "\n"))
_STOPS = re.compile(r"[.!?;:]\s")
_REWORD = re.compile(
    r"\b(?:translat\w+|tradui\w*|rephras\w+|reword\w*|rewrit\w+|paraphras\w+|reformul\w+|correct|corrige[rz]?|réécri\w+)\b",
    re.IGNORECASE,
)


@survey("D207")
@dataclass
class Questions:
    """Questions answered by a single question: more than a tenth of the answers, and at least three.

    Fewer are taken for requests to be clearer. A file whose prompts ask for questions is left alone: only rows
    whose prompt is itself a question count. So is one that words the prompts anew, as a translation does: all its
    questions become questions, and what is told stays told.
    """

    replies: int = 0
    questions: int = 0
    told_back: int = 0
    tally: Tally = field(default_factory=Tally)

    def see(self, batch: Batch) -> None:
        self.replies += len(batch.asked)
        self.questions += sum([asked.prompt[-1:] in _ASKS for asked in batch.asked])
        for asked in batch.asked:
            if asked.completion[-1:] not in _MAY_ASK:
                continue
            if not asked.prompt.rstrip().endswith(_ASKS):
                self.told_back += asked.completion.rstrip().endswith(_ASKS)
            elif _asks_back(asked):
                message = f"the answer to {quoted(asked.prompt)} is a question: {quoted(asked.completion)}"
                hint = "write answers; a model taught questions asks them"
                quote = asked.completion[:60]
                self.tally.add(Finding("D207", "warning", asked.example.source, message, hint, quote=quote))

    def merge(self, later: Self) -> None:
        self.replies += later.replies
        self.questions += later.questions
        self.told_back += later.told_back
        self.tally.merge(later.tally)

    def findings(self) -> Iterator[Finding]:
        count, told = self.tally.count, self.replies - self.questions
        if 10 * told >= self.replies and 10 * count >= 9 * self.questions and 10 * self.told_back <= told:
            return
        if self.replies >= _ENOUGH and count >= 3 and 10 * count > self.replies:
            first, *others = self.tally.first
            message = f"{share(count, self.replies)} answers are themselves questions: {first.quote!r} is the first"
            related = tuple(finding.source for finding in others[:5])
            yield Finding("D207", "warning", first.source, message, first.hint, related, first.quote)


def _asks_back(asked: Asked) -> bool:
    completion = asked.completion.rstrip()
    return completion.endswith(_ASKS) and not _STOPS.search(completion) and not _REWORD.search(asked.prompt)


# --- D214 ----------------------------------------------------------------------------------------


@survey("D214")
@dataclass
class Balance:
    """One answer to everything; and a few answers in JSON among others that are not."""

    digests: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    file: str = ""
    structured: int = 0
    first_structured: Source | None = None

    def see(self, batch: Batch) -> None:
        self.file = batch.file
        completions = [asked.completion for asked in batch.asked]
        self.digests.extend([zlib.crc32(completion.encode("utf-8", "surrogatepass")) for completion in completions])
        self.lines.extend([asked.example.source.line or 0 for asked in batch.asked])
        structured = sum([completion[0] == "{" and completion[-1] == "}" for completion in completions])
        if structured and not self.first_structured:
            self.first_structured = next(a.example.source for a in batch.asked if a.completion[0] == "{")
        self.structured += structured

    def merge(self, later: Self) -> None:
        self.digests.extend(later.digests)
        self.lines.extend(later.lines)
        self.file = self.file or later.file
        self.structured += later.structured
        self.first_structured = self.first_structured or later.first_structured

    def findings(self) -> Iterator[Finding]:
        rows = len(self.digests)
        if rows < _ENOUGH:
            return
        digests = numpy.frombuffer(self.digests, numpy.uint32)
        middle = numpy.partition(digests, rows // 2)[rows // 2]  # what is more than half stands in the middle
        same = numpy.flatnonzero(digests == middle)
        if 2 * len(same) > rows:
            lines = [self.lines[index] for index in same[:6].tolist()]
            first, *related = [Source(self.file, line or None) for line in lines]
            message = (
                f"the same answer stands in {share(len(same), rows)} answers: a model does well by giving it always"
            )
            hint = "write more of the others, or fewer of this one"
            yield Finding("D214", "warning", first, message, hint, tuple(related))
        if self.first_structured and 20 * self.structured < rows:
            message = f"{share(self.structured, rows)} answers are JSON objects, the others are not"
            hint = "write more of them, or leave them out: so few are hardly learnt"
            yield Finding("D214", "info", self.first_structured, message, hint)
