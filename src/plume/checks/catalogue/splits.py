"""D4: what evaluation shares with training."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D401": Entry(
        "evaluation row is also in training",
        "error",
        "its score shows memory only: in a random split of a real user's file the shared rows scored 83 %, "
        "the others 7 %, and the reported figure was 61 %",
        "remove it from one of the two",
    ),
    "D402": Entry(
        "evaluation row is nearly a training row",
        "warning",
        "the same answer to a question that differs in spelling only (as D202 defines it) is recalled more "
        "than understood, and raises the score",
        "remove it from one of the two, or ask in other words",
    ),
    "D403": Entry(
        "the evaluation file is the training file",
        "error",
        "the same file, the same bytes, or no row that is not trained: an evaluation loss below the training "
        "loss was taken for good generalisation, and showed memory only",
        "evaluate on rows that are not trained, or give no evaluation file and let Plume hold rows out",
    ),
    "D404": Entry(
        "too few evaluation rows for the claim",
        "info",
        "a score is known only within an interval (Wilson, 95 %): 90 % on 12 rows may be anything from 63 % "
        "to 98 %, on 100 rows from 83 % to 94 %",
        "ask 100 questions or more before two models are compared",
    ),
    "D405": Entry(
        "evaluation asks for answers that were never taught",
        "warning",
        "when most answers of an evaluation are taught, the others ask for facts that cannot be known; said "
        "once, and not at all where answers are worked out and not recalled",
        "teach these answers too, under other wordings, or do not ask for them",
    ),
}
