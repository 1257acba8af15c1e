"""Entries of the list in which Redis keeps the messages of a conversation; `lua/common.lua` says how they lie there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from plume.errors import PlumeError


def unpacked(packed: Sequence[bytes]) -> Iterator[bytes]:
    """The entries of an answer: their lengths, and they themselves one behind the other."""
    start, texts = 0, packed[1]
    for length in map(int, packed[0].split()):
        yield texts[start : start + length]
        start += length


def entry_of(row: bytes) -> tuple[int, str, int, bytes]:
    """Position, id, time in microseconds, body. Raises PlumeError for what Plume has not written."""
    try:
        position, moment, size, rest = row.split(b" ", 3)
        length = int(size)
        return int(position), rest[:length].decode("utf-8"), int(moment), rest[length:]
    except ValueError:
        hint = "restore it from a backup: something but Plume has changed its keys on Redis"
        raise PlumeError("a stored message is damaged: it does not say its place, time and id", hint) from None
