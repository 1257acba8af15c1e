"""Every code that a check may give: its title and why it matters. Codes are stable names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    title: str
    why: str


CATALOGUE = {
    "D101": Entry("line is not valid JSON", "a row that cannot be read is a row that is not learnt"),
    "D102": Entry("layout is not JSON lines", "other tools stop at the first line of such a file"),
    "D103": Entry("field missing, misspelt or unused", "nothing can be learnt without a prompt and a completion"),
    "D104": Entry("wrong type", "training needs text; one stray type breaks whole-file readers elsewhere"),
    "D105": Entry("empty prompt or completion", "the model would learn to answer nothing, or to answer to nothing"),
    "D106": Entry("two forms mixed", "which of the two is meant would be a guess"),
    "D107": Entry("not clean UTF-8", "the same question would be two byte sequences, or unreadable"),
    "D110": Entry("chat turns out of order", "the model would be trained on replies to nothing"),
    "D111": Entry("duplicate key or number out of range", "readers keep one value silently"),
    "D201": Entry("exact repeat of a row", "a repeated row counts twice in the loss and may leak into evaluation"),
    "D203": Entry("same prompt, different completions", "cannot be learnt: the rows pull against each other"),
    "D215": Entry("too few examples", "nothing general can be learnt from so little, nor measured"),
    "D301": Entry("example longer than max_length", "its answer and end token would be cut off"),
    "D305": Entry("unknown to the tokenizer", "what is unknown can neither be read nor answered"),
    "D309": Entry("template unfit for training", "replies cannot be told from prompts, or never end"),
    "D401": Entry("evaluation row is also in training", "its score shows memory, not understanding"),
    "D603": Entry("does not stop", "answers run on until the token limit"),
    "D608": Entry("not better than the baseline", "training changed nothing for the better"),
}
