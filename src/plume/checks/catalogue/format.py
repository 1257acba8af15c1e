"""D1: can the file be read, and is it what it says?"""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D101": Entry(
        "line is not valid JSON",
        "error",
        "a row that cannot be read is not learnt, and other tools stop at it without naming the line",
        "correct the JSON at the place named",
        fixable=True,
    ),
    "D102": Entry(
        "layout is not JSON lines",
        "warning",
        "tools that read one object a line fail on the first line of such a file",
        "write one object a line",
        fixable=True,
    ),
    "D103": Entry(
        "field missing, misspelt or unused",
        "error or warning",
        "without a prompt and a completion nothing can be learnt from the row",
        "rename the field, or name the columns: --prompt-column, --completion-column",
    ),
    "D104": Entry(
        "wrong type",
        "error or warning",
        "training needs text; one value of another type breaks whole-file readers elsewhere",
        "write the value as a string",
        fixable=True,
    ),
    "D105": Entry(
        "empty prompt or completion",
        "error",
        "the model would learn to answer nothing, or to answer to nothing",
        "fill it in, or drop the row",
        fixable=True,
    ),
    "D106": Entry(
        "two forms mixed",
        "error or warning",
        "which form is meant would be a guess that depends on the first row",
        "write all rows in one form",
        fixable=True,
    ),
    "D107": Entry(
        "not clean UTF-8",
        "error or warning",
        "one question would be two sequences of bytes, or unreadable",
        "convert the file to UTF-8, normalised as NFC",
        fixable=True,
    ),
    "D108": Entry(
        "markup left in",
        "warning",
        "the model learns to write `&quot;`, tags and fences, and programs that read its answers show them",
        "turn it back into plain characters",
        fixable=True,
    ),
    "D109": Entry(
        "placeholder left in",
        "warning",
        "the model learns the blank, not the thing: asked with `[NOM]` for a name, 67 % were answered, not 100 %",
        "fill it in, or drop the row",
    ),
    "D110": Entry(
        "chat turns out of order",
        "error",
        "the model would be trained on replies to nothing",
        "let user and assistant take turns, the assistant last",
    ),
    "D111": Entry(
        "duplicate key or number out of range",
        "warning",
        "readers keep the last value silently",
        "keep one value",
        fixable=True,
    ),
}
