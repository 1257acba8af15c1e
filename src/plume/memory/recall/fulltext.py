"""Full text of one tenant, in this process's memory: SQLite's FTS5, whatever the store is and whether or not it is
sealed. Words count without accents and case."""

from __future__ import annotations

import re
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

_WORD = re.compile(r"\w+")
_MOST_WORDS = 64  # of a question


def best_of(texts: Sequence[str], question: str, limit: int) -> list[int]:
    """Places of the texts that share words with a question, the best `limit` of them, the best first."""
    index = FullText()
    index.add(enumerate(texts))
    return list(islice(index.best(question), limit))


class FullText:
    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._connection.close)
        self._connection.execute("PRAGMA secure_delete=ON")
        self._connection.execute(
            "CREATE VIRTUAL TABLE texts USING fts5(text, tokenize = 'unicode61 remove_diacritics 2')"
        )

    def add(self, rows: Iterable[tuple[int, str]]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO texts(rowid, text) VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")

    def remove(self, rows: Iterable[int]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany("DELETE FROM texts WHERE rowid = ?", ((row,) for row in rows))
        self._connection.execute("COMMIT")

    def renumber(self, rows: Sequence[int]) -> None:
        """These rows, in growing order, become 0, 1, 2 and so on."""
        self._connection.execute("BEGIN")
        self._connection.executemany("UPDATE texts SET rowid = ? WHERE rowid = ?", enumerate(rows))
        self._connection.execute("COMMIT")

    def best(self, question: str) -> Iterator[int]:
        """Rows that hold a word of the question, the best first (BM25)."""
        words = list(dict.fromkeys(word.casefold() for word in _WORD.findall(question)))[:_MOST_WORDS]
        if not words:
            return
        # Every word in quotes: nothing in a question is syntax.
        wanted = " OR ".join(f'"{word}"' for word in words)
        for (row,) in self._connection.execute("SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY rank", (wanted,)):
            yield row
