"""Every code that Plume may give. Codes are stable names: they are never reused for something else."""

from __future__ import annotations

from plume.checks.catalogue import content, format, runs, scripts, settings, splits, tokens
from plume.checks.catalogue.entry import Entry

FAMILIES = {
    "D1": "Format of the file",
    "D2": "Content of the rows",
    "D3": "Tokens",
    "D4": "Splits",
    "D5": "Recipe and settings",
    "D6": "Runs",
    "D7": "Training scripts",
}

CATALOGUE: dict[str, Entry] = {
    **format.ENTRIES,
    **content.ENTRIES,
    **tokens.ENTRIES,
    **splits.ENTRIES,
    **settings.ENTRIES,
    **runs.ENTRIES,
    **scripts.ENTRIES,
}
