"""Findings about a file and its encoded rows, from the cache where this very file was prepared before."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plume import cache
from plume.checks.run import Examined, examine
from plume.checks.selection import SUFFIX, Selection
from plume.data.read import read
from plume.data.records import Reading, shown
from plume.data.split import Split
from plume.data.spool import Examples, Joined
from plume.data.sql import is_url
from plume.recipe import Recipe
from plume.runs import fingerprint
from plume.text.encoded import EncodedRows, encode_rows, load_rows
from plume.text.template import ChatTemplate
from plume.text.tokenizer import TextTokenizer
from plume.training.sources import reading
from plume.types import Example, Finding, Source


def examined(path: str, how: Reading, selection: Selection) -> Examined:
    """`examine`, its rules left out where they have seen these bytes before. A database is always asked."""
    entry = None if is_url(path) else _findings_entry(path, how, selection)
    known = cache.load(entry) if entry else None
    if known is None:
        found = examine(path, how, selection)
        if entry:
            told = [asdict(finding) for finding in found.findings]
            cache.keep(entry, {"count": found.count, "findings": told, "counts": found.counts})
        return found
    examples = Examples(item for item in read(path, how) if isinstance(item, Example))
    findings = tuple(_finding(value) for value in known["findings"])
    return Examined(shown(path), known["count"], findings, Counter(known["counts"]), examples)


def encoded_rows(recipe: Recipe, parts: Split, template: ChatTemplate, tokenizer: TextTokenizer) -> EncodedRows:
    """All rows, the training ones first."""
    entry = _rows_entry(recipe, template, tokenizer)
    path = cache.find(entry) if entry else None
    rows = load_rows(path) if path else None
    if rows is not None and len(rows) == len(parts.train) + len(parts.held_out):
        return rows
    rows = encode_rows(Joined(parts.train, parts.held_out), template, tokenizer)
    if entry:
        cache.store(entry, rows.pieces())
    return rows


def _findings_entry(path: str, how: Reading, selection: Selection) -> str | None:
    try:
        digest, side = fingerprint(path), Path(path + SUFFIX)
        excepted = fingerprint(str(side)) if side.is_file() else None
    except OSError:
        return None  # reading it will say why
    chosen = [selection.select, selection.ignore, dict(selection.severity), sorted(map(str, selection.names))]
    return cache.name("findings", shown(path), Path(path).name, digest, excepted, how, chosen)


def _rows_entry(recipe: Recipe, template: ChatTemplate, tokenizer: TextTokenizer) -> str | None:
    if "strftime_now" in template.source:
        return None  # it writes the day into every row
    try:
        data = [fingerprint(file) for file in (recipe.data, recipe.eval_data) if file and not is_url(file)]
    except OSError:
        return None
    if len(data) != 1 + bool(recipe.eval_data):
        return None
    split = [recipe.test_size, recipe.split_by, recipe.seed]
    known = hashlib.sha256(tokenizer.source.encode("utf-8", "surrogatepass")).hexdigest()
    names = tokenizer.special_token_names
    return cache.name("rows", data, Path(recipe.data).suffix, reading(recipe), split, known, names, template.source)


def _finding(value: Mapping[str, Any]) -> Finding:
    related = tuple(Source(**source) for source in value["related"])
    return Finding(**{**value, "source": Source(**value["source"]), "related": related})
