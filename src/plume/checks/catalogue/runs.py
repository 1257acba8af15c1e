"""D6: what a run shows."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D601": Entry(
        "weights unchanged or not finite",
        "error",
        "nothing was learnt, or everything lost",
        "lower the learning rate; when nothing changed, raise it",
    ),
    "D602": Entry(
        "training loss falls, evaluation loss rises",
        "warning",
        "rows are learnt by heart at the cost of others; the best checkpoint is kept, the steps after it are lost",
        "train fewer steps, or write more rows",
    ),
    "D603": Entry(
        "does not stop",
        "error",
        "answers run on until the token limit",
        "make sure that every training row ends on a trained end token",
    ),
    "D604": Entry(
        "same answer to everything",
        "error",
        "the question has no effect on the answer",
        "check that questions differ where answers do, then train longer or with a model that reads the question",
    ),
    "D605": Entry(
        "answers with questions",
        "warning",
        "the model goes on asking as its rows do, instead of answering",
        "check that completions are answers, and that only they are trained",
    ),
    "D606": Entry(
        "repeats itself",
        "warning",
        "the answer runs in a circle until it is cut",
        "train longer, on rows that end",
    ),
    "D607": Entry(
        "reloaded model answers differently",
        "error",
        "what was measured is not what will be used",
        "do not use the saved directory; report it with the run's recipe",
    ),
    "D608": Entry(
        "not better than the baseline",
        "error",
        "training changed nothing for the better",
        "check the data, then the learning rate and the number of steps",
    ),
    "D609": Entry(
        "loss low, answers wrong",
        "error",
        "the completion is not what the loss counted: a user's labels gave a loss of 0.19 and no right answer",
        "look at the trained tokens of a row: plume check FILE --model DIR --show LINE",
    ),
    "D610": Entry(
        "base abilities lost",
        "warning",
        "text that the base predicted well is now unlikely; given when the run recorded it before and after",
        "lower the learning rate or the steps, or mix general rows in",
    ),
}
