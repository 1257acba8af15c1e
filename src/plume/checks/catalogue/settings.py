"""D5: recipes and generation settings."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {}
