"""D2: what the rows say."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D201": Entry(
        "exact repeat of a row",
        "warning",
        "it counts twice in the loss and may stand in training and evaluation at once; 118 of the 248 rows of a real "
        "user's file were repeats",
        "drop the later one",
        fixable=True,
    ),
    "D202": Entry(
        "near-duplicate of a row",
        "warning",
        "the same answer to a prompt that is equal but for case, punctuation, white space, accents or two edits adds "
        "weight, not knowledge, and may leak into an evaluation; paraphrases are welcome and never reported",
        "keep one, or word the question really differently",
        fixable=True,
    ),
    "D203": Entry(
        "same prompt, different completions",
        "error",
        "it cannot be learnt: at best 75 % of such rows come out right, and they drag the others down to 73 %",
        "keep one answer",
        fixable=True,
    ),
    "D204": Entry(
        "answer is not valid JSON among answers that are",
        "error",
        "the model learns to break the format that the program reading its answers relies on",
        "repair it, or drop the row",
        fixable=True,
    ),
    "D205": Entry(
        "JSON answers of different mould",
        "warning",
        "a key that is sometimes missing, moves about or changes type has to be guessed, and code that reads it fails",
        "write one set of keys, in one order, with one type each",
        fixable=True,
    ),
    "D206": Entry(
        "answer repeats its prompt or runs on",
        "warning",
        "the model learns to echo the question, or to go on with the next one instead of stopping",
        "keep the answer alone",
        fixable=True,
    ),
    "D207": Entry(
        "answers that are questions",
        "warning",
        "a model taught questions answers with questions",
        "write the answers",
    ),
    "D208": Entry(
        "separators or terminators on some rows only",
        "warning",
        "the start and end of an answer are learnt to the character: one trailing space too many after the role marker "
        "when asking took exact answers from 100 % to 44 %",
        "strip them all: the template marks where an answer begins and ends",
        fixable=True,
    ),
    "D209": Entry(
        "base prompt on some rows only, or in several versions",
        "warning",
        "the model then knows some facts with it and others without it",
        "give it once, as the model's persona, or to every row alike",
    ),
    "D210": Entry(
        "personal data",
        "warning",
        "what is trained can be recited to anyone who asks",
        "redact it, unless it is meant to be known",
        fixable=True,
    ),
    "D211": Entry(
        "secret",
        "error",
        "a key or password that is trained can be recited to anyone who asks, and cannot be taken back",
        "redact it, and revoke it where it was issued",
        fixable=True,
    ),
    "D212": Entry(
        "several languages",
        "info",
        "a model answers in the language of its answers, whatever the language of the base; a few rows of another "
        "language are hardly learnt",
        "nothing, if it is meant",
    ),
    "D213": Entry(
        "stop words stripped",
        "warning",
        "articles and prepositions are how a language model knows what a sentence says, and it can only write what "
        "it has read",
        "keep the text as people write it",
    ),
    "D214": Entry(
        "one answer to most questions, or a rare form of answer",
        "warning or info",
        "always giving the commonest answer is then right more than half of the time, and that is what is learnt first",
        "balance the answers",
    ),
    "D215": Entry(
        "too few examples",
        "error, warning or info",
        "nothing general can be learnt from so little, nor measured; of questions in wordings never seen 7 % were "
        "answered by a model taught one wording each",
        "write more rows, with several wordings of each question",
    ),
    "D216": Entry(
        "final punctuation of prompts differs",
        "info",
        "the mark belongs to the question: removing it when asking took exact answers from 100 % to 33 %",
        "teach both ways, or write all prompts one way and ask that way",
    ),
}
