"""D2: what the rows say."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D201": Entry(
        "exact repeat of a row",
        "warning",
        "it counts twice in the loss and may stand in training and evaluation at once; 118 of the 248 rows of a real user's file were repeats",
        "drop the later one",
        fixable=True,
    ),
    "D203": Entry(
        "same prompt, different completions",
        "error",
        "it cannot be learnt: at best 75 % of such rows come out right, and they drag the others down to 73 %",
        "keep one answer",
        fixable=True,
    ),
    "D215": Entry(
        "too few examples",
        "error, warning or info",
        "nothing general can be learnt from so little, nor measured; of questions in wordings never seen 7 % were answered by a model taught one wording each",
        "write more rows, with several wordings of each question",
    ),
}
