"""D6: what a run shows."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D603": Entry(
        "does not stop",
        "error",
        "answers run on until the token limit",
        "make sure that every training row ends on a trained end token",
    ),
    "D608": Entry(
        "not better than the baseline",
        "error",
        "training changed nothing for the better",
        "check the data, then the learning rate and the number of steps",
    ),
}
