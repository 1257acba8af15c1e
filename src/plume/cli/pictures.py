"""Control characters as pictures: a terminal obeys them, whoever wrote them into a text."""

from __future__ import annotations

from typing import IO

# Those of C1 have no pictures.
_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
_BUT_LAYOUT = {code: picture for code, picture in _PICTURES.items() if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """The text with a picture of the same width in place of every control character."""
    return text.translate(_PICTURES)


def for_reader(text: str, stream: IO[str]) -> str:
    """The text with pictures in place of control characters, but for line ends and tabs, where a terminal reads the
    stream; as it is where a program does."""
    return text.replace("\r\n", "\n").translate(_BUT_LAYOUT) if stream.isatty() else text
