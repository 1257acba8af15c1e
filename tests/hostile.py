"""Bytes that no reader expects, and what every reader owes them: an answer, soon, about places that exist."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plume.errors import UserError
from plume.types import Example, Finding

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".jsonl.gz", ".jsonl.zst", ".parquet", ".py", ".ipynb")
SECONDS = 5.0  # in which a small file must be read
_MESSAGE = 1000  # characters of a finding's message or hint: a person is to read them
_LINES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".py", ".ipynb")  # formats whose lines can be counted


def examined(path: Path) -> Iterator[Example | Finding]:
    """What the reader made for a file says about it. Raises UserError when it refuses it.

    The readers are imported here so that a fuzzer can instrument them before.
    """
    from plume.checks.scripts import examine_script
    from plume.data.read import read

    script = path.suffix in (".py", ".ipynb")
    yield from examine_script(str(path)) if script else read(path)


def survives(path: Path, *, seconds: float = SECONDS) -> int:
    """Read a file of any bytes and assert all that is owed; how many examples and findings there were.

    The reader raises nothing but UserError, takes less than `seconds`, gives places that exist in the file, in its
    order, examples that are text, and findings that are to the point.
    """
    began = time.monotonic()
    last, count, refusal = 0, 0, "refused"
    inside = _inside(path) if path.suffix in _LINES and not _is_packed(path) else None
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
        refusal = error.message
    assert 0 < len(refusal) <= _MESSAGE
    took = time.monotonic() - began
    assert took < seconds, f"took {took:.1f} s"
    return count


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4).startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd"))


def _inside(path: Path) -> Callable[[int, int], bool]:
    """Whether a line, and a column of it, exists in a text file; one more of each than there are is its end."""
    if path.stat().st_size > 2**20:
        with path.open("rb") as stream:
            count = 1 + sum(block.count(b"\n") + block.count(b"\r") for block in iter(lambda: stream.read(2**20), b""))
        return lambda line, _: line <= count
    data = path.read_bytes()
    if path.suffix in (".py", ".ipynb"):
        encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
        data = data.decode(encoding, "replace").encode("utf-8").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = data.split(b"\n")
    return lambda line, column: line <= len(lines) and column <= len(lines[line - 1].decode("utf-8", "replace")) + 1


# --- monsters ----------------------------------------------------------------------------------------

_ROW = '{"prompt": "q", "completion": "a"}'
_PAIR = '{{"prompt": {}, "completion": {}}}\n'


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


def _numbered(before: str, piece: str, after: str) -> Callable[[int], Iterator[bytes]]:
    """That many of a piece, each with its number in place of `{n}`."""

    def pieces(size: int) -> Iterator[bytes]:
        yield before.encode()
        yield from (piece.format(n=number).encode() for number in range(size))
        yield after.encode()

    return pieces


def _nested(before: str, opening: str, closing: str, after: str) -> Callable[[int], Iterator[bytes]]:
    return lambda depth: iter([f"{before}{opening * depth}1{closing * depth}{after}\n".encode()])


def _ladder(row: str) -> Callable[[int], Iterator[bytes]]:
    """Rows nested to every depth around the deepest that can be read."""
    return lambda size: (
        (row.replace("@", "[" * depth + "]" * depth) + "\n").encode() for depth in range(1000 - size, 1000)
    )


def _gzip_bomb(row: str) -> Callable[[int], Iterator[bytes]]:
    """Members of 100 kB each: a hundred thousand of them are 10 GB in some 15 MB."""
    return lambda size: iter([gzip.compress((row * (100_000 // len(row))).encode())] * size)


def _empty_members(size: int) -> Iterator[bytes]:
    yield gzip.compress(b"") * size


def _zstd_bomb(size: int) -> Iterator[bytes]:
    import zstandard

    yield from [zstandard.ZstdCompressor(level=19).compress(b" " * 100_000_000)] * size


def _steps(size: int) -> Iterator[bytes]:
    """Strings with raw line breaks, each beginning a little to the left of the one before."""
    text = b"x" * 2000
    yield from (b" " * (size - number) + b'{"prompt": "' + text + b"\n" for number in range(size))


def _spread(size: int) -> Iterator[bytes]:
    """Objects of 150 lines each, none of which is closed."""
    body = b"".join(b'  "key %d": "%s",\n' % (number, b"v" * 200) for number in range(150))
    yield from (b"{\n" + body for _ in range(size))


def _bytes(before: str, piece: str, after: str = "") -> Callable[[int], Iterator[bytes]]:
    return _repeated(before.encode("latin-1"), piece.encode("latin-1"), after.encode("latin-1"))


def _wide(first: str) -> Callable[[int], Iterator[bytes]]:
    """Rows of 10,000 cells under the first names and numbered ones."""
    names = [*first.split(), *(f"column {number}" for number in range(10_000))][:10_000]
    return _bytes(",".join(names) + "\n", "1," * 9_999 + "1\n")


def _cells(size: int) -> Iterator[bytes]:
    yield json.dumps({"cells": [{"cell_type": "code", "source": ["x = ("]}] * size}).encode()


_CELL = '{"cells": [{"cell_type": "code", "source": "'
_LONE = r'{"prompt": "\ud800", "completion": "\udc00 \ud83d"}' + "\n"
_LONE_NAMES = r'{"\ud800": 1, "\ud800": {"\udfff": 2}}' + "\n"
_OVERLONG = '{"prompt": "\xc0\xaf \xe0\x80\xaf \xf8\x88\x80\x80\x80"}\n'
_ZEROS = "0" * 100

MONSTERS = (
    Monster("deep-array.jsonl", _nested('{"prompt": "q", "completion": ', "[", "]", "}"), 20_000, 100_000),
    Monster("deep-object.json", _nested("[", '{"a":', "}", "]"), 20_000, 100_000),
    Monster("deep-array.json", _nested("", "[", "]", ""), 20_000, 100_000),
    Monster("deep-unclosed.jsonl", _bytes("", "["), 20_000, 100_000),
    Monster("deep-code.py", _nested("x = ", "(", ")", ""), 5_000, 100_000),
    Monster("deep-notebook.ipynb", _nested("", '{"cells": [', "]}", ""), 5_000, 100_000),
    Monster("ladder-completion.jsonl", _ladder('{"prompt": "q", "completion": @}'), 60, 900),
    Monster("ladder-prompt.jsonl", _ladder('{"prompt": @, "completion": "a"}'), 60, 900),
    Monster("ladder-role.jsonl", _ladder('{"messages": [{"role": @, "content": "x"}]}'), 60, 900),
    Monster("ladder-content.jsonl", _ladder('{"messages": [{"role": "assistant", "content": @}]}'), 60, 900),
    Monster("ladder-unclosed.jsonl", _ladder('{"prompt": @, "completion": "a'), 60, 900),
    Monster("long-line.jsonl", _bytes('{"prompt": "', "x" * 100, '", "completion": "a"}\n'), 200_000, 1_000_000),
    Monster("long-row.json", _bytes('[{"prompt": "', "x" * 100, '", "completion": "a"}]'), 200_000, 1_000_000),
    Monster("long-cell.csv", _bytes('prompt,completion\n"', "x" * 100, '",a\n'), 200_000, 1_000_000),
    Monster("long-text.txt", _bytes("", "x" * 100, "\n"), 200_000, 1_000_000),
    Monster("long-role.jsonl", _bytes('{"messages": [{"role": "', "x" * 100, '", "content": "a"}]}'), 5_000, 150_000),
    Monster("long-key.jsonl", _bytes('{"', "x" * 100, '": 1}\n'), 5_000, 150_000),
    Monster("long-key-twice.jsonl", _numbered("{", '"' + "k" * 2_000_000 + '": {n}, ', '"b": 1}\n'), 2, 7),
    Monster("long-column.csv", _bytes("", "x" * 100, ",b\n1,2\n"), 5_000, 150_000),
    Monster("long-column-twice.csv", _numbered("prompt", "," + "c" * 2_000_000, "\n1,2,3\n"), 2, 7),
    Monster("no-closing-quote.jsonl", _bytes('{"prompt": "q", "completion": "', "x" * 100, "\n"), 5_000, 150_000),
    Monster("backslashes.jsonl", _bytes('{"prompt": "', "\\", '"}\n'), 50_000, 10_000_000),
    Monster("surrogates.jsonl", _bytes("", _LONE), 300, 100_000),
    Monster("surrogate-names.jsonl", _bytes("", _LONE_NAMES), 300, 100_000),
    Monster("surrogate-bytes.jsonl", _bytes("", '{"prompt": "\xed\xa0\x80"}\n'), 300, 100_000),
    Monster("overlong.jsonl", _bytes("", _OVERLONG), 300, 100_000),
    Monster("overlong.json", _bytes("[", _OVERLONG), 300, 100_000),
    Monster("overlong.csv", _bytes("prompt,completion\n", "\xc0\xaf,\xf4\x90\x80\x80\n"), 300, 100_000),
    Monster("overlong.py", _bytes("", "x = '\xc0\xaf'\n"), 300, 30_000),
    Monster("zeros.jsonl", _bytes("", "\0"), 10_000, 100_000_000),
    Monster("zeros.csv", _bytes("a,b\n", "\0"), 10_000, 100_000_000),
    Monster("zeros.py", _bytes("", "\0"), 10_000, 60_000_000),
    Monster("zeros-after-rows.jsonl", _bytes(_ROW, "\n\0\n"), 10_000, 10_000_000),
    Monster("integers-401.jsonl", _bytes("", _PAIR.format("1" + "0" * 400, '"a"')), 10, 10_000),
    Monster("integers-4301.jsonl", _bytes("", _PAIR.format('"q"', "[1" + "0" * 4300 + "]")), 10, 3_000),
    Monster("integers.jsonl", _bytes('{"prompt": "q", "completion": [', "9" * 309 + ", ", "1]}\n"), 300, 50_000),
    Monster("integer.jsonl", _bytes('{"prompt": 1', _ZEROS, ', "completion": "a"}\n'), 3_000, 100_000),
    Monster("integer.ipynb", _bytes('{"cells": [], "nbformat": 1', _ZEROS, "}"), 44, 10_000),
    Monster("integer.py", _bytes("x = 1", _ZEROS, "\n"), 44, 4_000),
    Monster("exponents.jsonl", _bytes("", _PAIR.format('"q"', '{"n": 1e400, "m": -1e400}')), 10, 10_000),
    Monster("same-key.jsonl", _bytes("{", '"a": 1, ', '"b": 1}\n'), 20_000, 1_000_000),
    Monster("keys-twice.jsonl", _numbered("{", '"{n}": 1, "{n}": 2, ', '"b": 1}\n'), 10_000, 500_000),
    Monster("many-keys.jsonl", _numbered('{"completion": "a", ', '"promp{n}": 1, ', '"b": 1}\n'), 5_000, 500_000),
    Monster("new-keys.jsonl", _numbered("", '{{"prompt": "q", "completion": "a", "{n}": 1}}\n', ""), 5_000, 300_000),
    Monster("wide.csv", _wide(""), 5, 200),
    Monster("wide-pair.csv", _wide("prompt completion"), 20, 500),
    Monster("wide-half.csv", _wide("prompt"), 5, 200),
    Monster("wide-same.csv", _bytes("prompt,completion", ",c", "\n"), 50_000, 5_000_000),
    Monster("ragged.csv", _bytes("prompt,completion\n", "," * 99_999 + "\n"), 3, 100),
    Monster("empty-arrays.json", _bytes("[", "[], ", "[]]"), 20_000, 1_000_000),
    Monster("empty-arrays.jsonl", _bytes("[", "[], ", "[]]\n"), 20_000, 1_000_000),
    Monster("empty-messages.jsonl", _bytes('{"messages": [', "[], ", "[]]}\n"), 20_000, 1_000_000),
    Monster("unclosed-quotes.csv", _numbered("prompt,completion\n", '"question {n},answer\n', ""), 3_000, 1_000_000),
    Monster("bare-quotes.csv", _bytes("prompt,completion\n", '"\n'), 3_000, 1_000_000),
    Monster("quotes.csv", _bytes("prompt,completion\n", '"'), 30_000, 10_000_000),
    Monster("quoted-quotes.csv", _bytes("prompt,completion\n", '"a"b,c\n'), 3_000, 300_000),
    Monster("newlines.jsonl", _bytes("", "\n"), 100_000, 10_000_000),
    Monster("newlines.json", _bytes("", "\n", "["), 100_000, 10_000_000),
    Monster("newlines.csv", _bytes("", "\n"), 100_000, 10_000_000),
    Monster("newlines.txt", _bytes("", "\n"), 100_000, 10_000_000),
    Monster("newlines.py", _bytes("", "\n"), 100_000, 10_000_000),
    Monster("newlines.ipynb", _bytes(_CELL, "\\n", '"}]}'), 100_000, 10_000_000),
    Monster("spaced-lines.ipynb", _bytes(_CELL, " \\n", 'x ="}]}'), 50_000, 5_000_000),
    Monster(
        "constant-after-escapes.jsonl", _bytes('{"prompt": "', "\\n", '", "completion": NaN}\n'), 50_000, 5_000_000
    ),
    Monster("spaces.jsonl", _bytes("", " "), 100_000, 100_000_000),
    Monster("returns.jsonl", _bytes("", _ROW + "\r"), 1_000, 400_000),
    Monster("returns.csv", _bytes("prompt,completion\r", "q,a\r"), 1_000, 1_000_000),
    Monster("returns.txt", _bytes("", "a line\r"), 1_000, 1_000_000),
    Monster("returns.py", _bytes("", "x = 1\r"), 1_000, 60_000),
    Monster("open-braces.jsonl", _bytes("", "{\n"), 1_000, 300_000),
    Monster("open-strings.jsonl", _bytes("", '{"prompt": "a\n'), 1_000, 300_000),
    Monster("open-strings-stepping.jsonl", _steps, 60, 600),
    Monster("open-objects.jsonl", _spread, 20, 400),
    Monster("bomb.jsonl.gz", _gzip_bomb(_ROW + "\n"), 5, 100_000),
    Monster("bomb-of-zeros.jsonl.gz", _gzip_bomb("\0"), 700, 100_000),
    Monster("bomb-of-spaces.txt.gz", _gzip_bomb(" "), 700, 100_000),
    Monster("bomb-of-newlines.csv.gz", _gzip_bomb("\n"), 2, 100_000),
    Monster("bomb.jsonl.zst", _zstd_bomb, 2, 100),
    Monster("empty-members.jsonl.gz", _empty_members, 3_000, 500_000),
    Monster("magics.py", _bytes("", "!x ; ( \n"), 1_000, 60_000),
    Monster("faults.py", _bytes("", "x = (\nif\n"), 500, 30_000),
    Monster("cells.ipynb", _cells, 300, 20_000),
    Monster("plus.py", _bytes("x = a", " + a", "\n"), 3_000, 100_000),
    Monster("attributes.py", _bytes("x", ".y", "\n"), 3_000, 200_000),
    Monster("calls.py", _bytes("", "model.generate(x, max_length=model(x))\n"), 300, 10_000),
    Monster("assignments.py", _numbered("x0 = 1\n", "x{n} = y = x{n}.z(x0)\n", ""), 500, 15_000),
)
