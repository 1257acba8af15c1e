"""D7: other people's training scripts."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {}
