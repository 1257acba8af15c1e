"""Bytes that no reader expects, and what every reader owes them: an answer, soon, about places that exist."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plume.checks.scripts import examine_script
from plume.data.read import read
from plume.errors import UserError
from plume.types import Example, Finding

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".jsonl.gz", ".jsonl.zst", ".parquet", ".py", ".ipynb")
SECONDS = 5.0  # in which a small file must be read
_MESSAGE = 1000  # characters of a finding's message or hint: a person is to read them
_LINES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".py", ".ipynb")  # formats whose lines can be counted


def examined(path: Path) -> Iterator[Example | Finding]:
    """What the reader made for a file says about it. Raises UserError when it refuses it."""
    script = path.suffix in (".py", ".ipynb")
    yield from examine_script(str(path)) if script else read(path)


def survives(path: Path, *, seconds: float = SECONDS) -> int:
    """Read a file of any bytes and assert all that is owed; how many examples and findings there were.

    The reader raises nothing but UserError, takes less than `seconds`, gives places that exist in the file, in its
    order, examples that are text, and findings that are to the point. A generator is not kept: its memory is its own.
    """
    began = time.monotonic()
    last, count = 0, 0
    inside = _inside(path) if path.suffix in _LINES else None
    try:
        for item in examined(path):
            count += 1
            line = item.source.line
            assert line is None or line >= 1, item
            if inside:
                assert inside(line or 1, item.source.column or 1), item
            if isinstance(item, Example):
                assert (line or 0) >= last, f"line {line} comes after line {last}"
                last = line or 0
                assert all(message.content.encode("utf-8") is not None for message in item.messages)
            else:
                assert item.message, item
                assert item.hint, item
                assert max(len(item.message), len(item.hint)) <= _MESSAGE, item.code
    except UserError as error:
        assert error.message
        assert len(error.message) <= _MESSAGE
    took = time.monotonic() - began
    assert took < seconds, f"took {took:.1f} s"
    return count


def _inside(path: Path) -> Callable[[int, int], bool]:
    """Whether a line, and a column of it, exists in a text file; one more of each than there are is its end."""
    data = path.read_bytes()
    if path.suffix in (".py", ".ipynb"):
        encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
        data = data.decode(encoding, "replace").encode("utf-8").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = data.split(b"\n") if len(data) < 2**20 else None
    count = data.count(b"\n") + 1

    def exists(line: int, column: int) -> bool:
        if lines is None or line > count:
            return line <= count
        return column <= len(lines[line - 1].decode("utf-8", "replace")) + 1

    return exists


# --- monsters ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Monster:
    """A file that is large or twisted in one way: `pieces(size)` are its bytes.

    `small` is the size for a test, `large` the one that is meant.
    """

    name: str
    pieces: Callable[[int], Iterator[bytes]]
    small: int
    large: int

    def write(self, folder: Path, size: int) -> Path:
        path = folder / self.name
        with path.open("wb") as stream:
            stream.writelines(self.pieces(size))
        return path


def _repeated(before: bytes, piece: bytes, after: bytes) -> Callable[[int], Iterator[bytes]]:
    """That many of a piece, in blocks."""

    def pieces(size: int) -> Iterator[bytes]:
        yield before
        block = piece * min(size, 10_000)
        for _ in range(size // 10_000):
            yield block
        yield piece * (size % 10_000) + after

    return pieces


def _numbered(before: bytes, piece: str, after: bytes) -> Callable[[int], Iterator[bytes]]:
    return lambda size: itertools.chain([before], (piece.format(n=n).encode() for n in range(size)), [after])


def _nested(before: str, opening: str, closing: str, after: str) -> Callable[[int], Iterator[bytes]]:
    return lambda depth: iter([f"{before}{opening * depth}1{closing * depth}{after}\n".encode()])


def _ladder(row: str) -> Callable[[int], Iterator[bytes]]:
    """Rows nested to every depth around the deepest that can be read."""
    return lambda size: (
        (row.replace("@", "[" * depth + "]" * depth) + "\n").encode() for depth in range(1000 - size, 1000)
    )


def _gzip_bomb(row: bytes) -> Callable[[int], Iterator[bytes]]:
    """Members of 10 MB each: a thousand of them are 10 GB in 10 MB."""
    return lambda size: iter([gzip.compress(row * (10_000_000 // len(row)), 9)] * size)


def _zstd_bomb(size: int) -> Iterator[bytes]:
    import zstandard

    yield from [zstandard.ZstdCompressor(level=19).compress(b" " * 100_000_000)] * size


def _unclosed(size: int) -> Iterator[bytes]:
    yield b"prompt,completion\n"
    yield from (f'"question {number},answer\n'.encode() for number in range(size))


def _steps(size: int) -> Iterator[bytes]:
    """Strings with raw line breaks, each beginning a little to the left of the one before."""
    text = b"x" * 2000
    yield from (b" " * (size - number) + b'{"prompt": "' + text + b"\n" for number in range(size))


def _spread(size: int) -> Iterator[bytes]:
    """Objects of 150 lines each, none of which is closed."""
    body = b"".join(b'  "key %d": "%s",\n' % (number, b"v" * 200) for number in range(150))
    yield from (b"{\n" + body for _ in range(size))


_ROW = b'{"prompt": "q", "completion": "a"}'
_PAIR = '{{"prompt": {}, "completion": {}}}\n'

MONSTERS = (
    Monster("deep-array.jsonl", _nested('{"prompt": "q", "completion": ', "[", "]", "}"), 20_000, 100_000),
    Monster("deep-object.json", _nested("[", '{"a":', "}", "]"), 20_000, 100_000),
    Monster("deep-array.json", _nested("", "[", "]", ""), 20_000, 100_000),
    Monster("deep-unclosed.jsonl", _repeated(b"", b"[", b""), 20_000, 100_000),
    Monster("deep-code.py", _nested("x = ", "(", ")", ""), 5_000, 100_000),
    Monster("deep-notebook.ipynb", _nested("", '{"cells": [', "]}", ""), 5_000, 100_000),
    Monster("ladder-completion.jsonl", _ladder('{"prompt": "q", "completion": @}'), 60, 900),
    Monster("ladder-prompt.jsonl", _ladder('{"prompt": @, "completion": "a"}'), 60, 900),
    Monster("ladder-role.jsonl", _ladder('{"messages": [{"role": @, "content": "x"}]}'), 60, 900),
    Monster("ladder-content.jsonl", _ladder('{"messages": [{"role": "assistant", "content": @}]}'), 60, 900),
    Monster("ladder-unclosed.jsonl", _ladder('{"prompt": @, "completion": "a'), 60, 900),
    Monster("long-line.jsonl", _repeated(b'{"prompt": "', b"x" * 100, b'", "completion": "a"}\n'), 200_000, 1_000_000),
    Monster("long-row.json", _repeated(b'[{"prompt": "', b"x" * 100, b'", "completion": "a"}]'), 200_000, 1_000_000),
    Monster("long-cell.csv", _repeated(b'prompt,completion\n"', b"x" * 100, b'",a\n'), 200_000, 1_000_000),
    Monster("long-text.txt", _repeated(b"", b"x" * 100, b"\n"), 200_000, 1_000_000),
    Monster("long-role.jsonl", _repeated(b'{"messages": [{"role": "', b"x" * 100, b'", "content": "a"}]}'), 5_000, 150_000),
    Monster("long-key.jsonl", _repeated(b'{"', b"x" * 100, b'": 1}\n'), 5_000, 150_000),
    Monster("long-key-twice.jsonl", _numbered(b"{", '"' + "k" * 2_000_000 + '": {n},', b'"b": 1}\n'), 2, 7),
    Monster("long-column.csv", _repeated(b"", b"x" * 100, b",b\n1,2\n"), 5_000, 150_000),
    Monster("no-closing-quote.jsonl", _repeated(b'{"prompt": "q", "completion": "', b"x" * 100, b"\n"), 5_000, 150_000),
    Monster("backslashes.jsonl", _repeated(b'{"prompt": "', b"\\", b'"}\n'), 50_000, 10_000_000),
    Monster("surrogates.jsonl", _repeated(b"", rb'{"prompt": "\ud800", "completion": "\udc00 \ud83d"}' + b"\n", b""), 300, 100_000),
    Monster("surrogate-names.jsonl", _repeated(b"", rb'{"\ud800": 1, "\ud800": {"\udfff": 2}}' + b"\n", b""), 300, 100_000),
    Monster("surrogate-bytes.jsonl", _repeated(b"", b'{"prompt": "\xed\xa0\x80"}\n', b""), 300, 100_000),
    Monster("overlong.jsonl", _repeated(b"", b'{"prompt": "\xc0\xaf \xe0\x80\xaf \xf8\x88\x80\x80\x80"}\n', b""), 300, 100_000),
    Monster("overlong.csv", _repeated(b"prompt,completion\n", b"\xc0\xaf,\xf4\x90\x80\x80\n", b""), 300, 100_000),
    Monster("overlong.py", _repeated(b"", b"x = '\xc0\xaf'\n", b""), 300, 30_000),
    Monster("zeros.jsonl", _repeated(b"", b"\0", b""), 10_000, 100_000_000),
    Monster("zeros.csv", _repeated(b"a,b\n", b"\0", b""), 10_000, 100_000_000),
    Monster("zeros.py", _repeated(b"", b"\0", b""), 10_000, 60_000_000),
    Monster("zeros-after-rows.jsonl", _repeated(_ROW + b"\n", b"\0\n", b""), 10_000, 10_000_000),
    Monster("integer-401.jsonl", lambda n: iter([_PAIR.format("1" + "0" * 400, '"a"').encode() * n]), 10, 10_000),
    Monster("integer-4301.jsonl", lambda n: iter([_PAIR.format('"q"', "[1" + "0" * 4300 + "]").encode() * n]), 10, 3_000),
    Monster("integer.ipynb", lambda n: iter([b'{"cells": [], "nbformat": 1' + b"0" * n + b"}"]), 4_400, 1_000_000),
    Monster("integer.py", lambda n: iter([b"x = 1" + b"0" * n + b"\n"]), 4_400, 400_000),
    Monster("integer-long.jsonl", _repeated(b'{"prompt": 1', b"0" * 100, b', "completion": "a"}\n'), 3_000, 100_000),
    Monster("exponent.jsonl", lambda n: iter([_PAIR.format('"q"', '{"n": 1e400, "m": -1e400}').encode() * n]), 10, 10_000),
    Monster("same-key.jsonl", _repeated(b"{", b'"a": 1, ', b'"b": 1}\n'), 20_000, 1_000_000),
    Monster("keys-twice.jsonl", lambda n: _numbered(b"{", '"{n}": 1, "{n}": 2, ', b'"b": 1}\n')(n), 10_000, 500_000),
    Monster("many-keys.jsonl", _numbered(b'{"completion": "a", ', '"promp{n}": 1, ', b'"b": 1}\n'), 5_000, 500_000),
    Monster("new-keys.jsonl", _numbered(b"", '{{"prompt": "q", "completion": "a", "key {n}": 1}}\n', b""), 5_000, 300_000),
    Monster("wide.csv", lambda n: iter([",".join(f"c{i}" for i in range(10_000)).encode() + b"\n", (b"1," * 9_999 + b"1\n") * n]), 5, 200),
    Monster("wide-pair.csv", lambda n: iter([b"prompt,completion," + b",".join(b"c%d" % i for i in range(9_998)) + b"\n", (b"1," * 9_999 + b"1\n") * n]), 20, 500),
    Monster("wide-same.csv", _repeated(b"prompt,completion", b",c", b"\n"), 50_000, 5_000_000),
    Monster("ragged.csv", lambda n: iter([b"prompt,completion\n", b"," * 999_999 + b"\n"] * n), 1, 10),
    Monster("empty-arrays.json", _repeated(b"[", b"[], ", b"[]]"), 20_000, 1_000_000),
    Monster("empty-array-line.jsonl", _repeated(b"[", b"[], ", b"[]]\n"), 20_000, 1_000_000),
    Monster("empty-messages.jsonl", _repeated(b'{"messages": [', b"[], ", b"[]]}\n"), 20_000, 1_000_000),
    Monster("unclosed-quotes.csv", _unclosed, 3_000, 1_000_000),
    Monster("bare-quotes.csv", _repeated(b"prompt,completion\n", b'"\n', b""), 3_000, 1_000_000),
    Monster("quotes.csv", _repeated(b"prompt,completion\n", b'"', b""), 30_000, 10_000_000),
    Monster("quoted-quotes.csv", _repeated(b"prompt,completion\n", b'"a"b,c\n', b""), 3_000, 300_000),
    Monster("newlines.jsonl", _repeated(b"", b"\n", b""), 100_000, 10_000_000),
    Monster("newlines.json", _repeated(b"", b"\n", b"["), 100_000, 10_000_000),
    Monster("newlines.csv", _repeated(b"", b"\n", b""), 100_000, 10_000_000),
    Monster("newlines.txt", _repeated(b"", b"\n", b""), 100_000, 10_000_000),
    Monster("newlines.py", _repeated(b"", b"\n", b""), 100_000, 10_000_000),
    Monster("spaces.jsonl", _repeated(b"", b" ", b""), 100_000, 100_000_000),
    Monster("returns.jsonl", _repeated(b"", _ROW + b"\r", b""), 1_000, 400_000),
    Monster("returns.csv", _repeated(b"prompt,completion\r", b"q,a\r", b""), 1_000, 1_000_000),
    Monster("returns.txt", _repeated(b"", b"a line\r", b""), 1_000, 1_000_000),
    Monster("returns.py", _repeated(b"", b"x = 1\r", b""), 1_000, 60_000),
    Monster("open-braces.jsonl", _repeated(b"", b"{\n", b""), 1_000, 300_000),
    Monster("open-strings.jsonl", _repeated(b"", b'{"prompt": "a\n', b""), 1_000, 300_000),
    Monster("open-strings-stepping.jsonl", _steps, 60, 600),
    Monster("open-objects.jsonl", _spread, 20, 400),
    Monster("bomb.jsonl.gz", _gzip_bomb(_ROW + b"\n"), 12, 1_000),
    Monster("bomb-of-zeros.jsonl.gz", _gzip_bomb(b"\0"), 12, 1_000),
    Monster("bomb-of-spaces.txt.gz", _gzip_bomb(b" "), 12, 1_000),
    Monster("bomb-of-newlines.csv.gz", _gzip_bomb(b"\n"), 12, 1_000),
    Monster("bomb.jsonl.zst", _zstd_bomb, 2, 1_000),
    Monster("empty-members.jsonl.gz", lambda n: iter([gzip.compress(b"")] * n), 3_000, 500_000),
    Monster("magics.py", _repeated(b"", b"!x ; ( \n", b""), 1_000, 60_000),
    Monster("faults.py", _repeated(b"", b"x = (\nif\n", b""), 500, 30_000),
    Monster("cells.ipynb", lambda n: iter([json.dumps({"cells": [{"cell_type": "code", "source": ["x = ("]}] * n}).encode()]), 300, 20_000),
    Monster("plus.py", _repeated(b"x = a", b" + a", b"\n"), 3_000, 100_000),
    Monster("attributes.py", _repeated(b"x", b".y", b"\n"), 3_000, 200_000),
    Monster("calls.py", _repeated(b"", b"model.generate(x, max_length=model(x))\n", b""), 300, 10_000),
    Monster("assignments.py", _numbered(b"x0 = 1\n", "x{n} = y = x{n}.z(x0)\n", b""), 500, 15_000),
)  # fmt: skip
