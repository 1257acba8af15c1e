"""D4: what evaluation shares with training."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D401": Entry(
        "evaluation row is also in training",
        "error",
        "its score shows memory only: in a random split of a real user's file the shared rows scored 83 %, the others 7 %, and the reported figure was 61 %",
        "remove it from one of the two",
    ),
}
