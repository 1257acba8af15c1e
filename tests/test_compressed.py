"""gzip and zstd under any name: the same bytes come out, and what is damaged says so after what is not."""

import contextlib
import gzip
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from plume.data.compressed import DamagedArchive, opened
from plume.errors import UserError

TEXT = "".join(f"ligne {number} : où est le phare ?\n" for number in range(3000)).encode()


def zstd(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(text)


Pack = Callable[[bytes], bytes]
PACKERS = pytest.mark.parametrize("pack", [gzip.compress, zstd])


class Piped(io.RawIOBase):
    """A stream that cannot seek and gives one byte at a time."""

    def __init__(self, content: bytes) -> None:
        self.rest = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count = min(1, len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


@PACKERS
def test_an_archive_gives_its_lines(pack: Pack) -> None:
    assert list(opened(io.BytesIO(pack(TEXT)), "qa.jsonl")) == TEXT.splitlines(keepends=True)


@PACKERS
def test_several_archives_in_one_file_are_one_text(pack: Pack) -> None:
    assert opened(io.BytesIO(pack(b"a\n") + pack(b"") + pack(TEXT) + b"\0" * 3000), "qa").read() == b"a\n" + TEXT


@given(st.binary(max_size=200))
def test_what_is_no_archive_comes_through_unchanged(content: bytes) -> None:
    assume(not content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))
    for stream in (io.BytesIO(content), io.BufferedReader(Piped(content))):
        assert opened(stream, "qa.jsonl").read() == content


@PACKERS
def test_a_pipe_is_read_without_seeking(pack: Pack) -> None:
    reading, writing = os.pipe()
    content = pack(TEXT * 20)

    def write() -> None:
        with open(writing, "wb") as stream:  # noqa: PTH123
            stream.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    with open(reading, "rb") as stream:  # noqa: PTH123
        assert opened(stream, "-").read() == TEXT * 20
    writer.join()
    assert opened(io.BufferedReader(Piped(pack(TEXT))), "-").read() == TEXT


@PACKERS
def test_lines_before_the_damage_are_read_and_then_it_is_named(pack: Pack) -> None:
    text = b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(30_000))
    stream = opened(io.BytesIO(pack(text)[:-2000]), "qa.gz")
    lines: list[bytes] = []
    with pytest.raises(DamagedArchive, match="cut short"):
        lines.extend(iter(stream.readline, b""))
    assert 10_000 < len(lines) < 30_000
    assert b"".join(lines) == text[: sum(map(len, lines))]


@PACKERS
def test_changed_bytes_are_damage(pack: Pack) -> None:
    content = bytearray(pack(TEXT))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(DamagedArchive):
        opened(io.BytesIO(bytes(content) + pack(TEXT)), "qa.gz").read()


def test_text_after_the_archive_is_damage() -> None:
    with pytest.raises(DamagedArchive, match="after the end"):
        opened(io.BytesIO(gzip.compress(TEXT) + b"more text"), "qa.gz").read()


def _drain(stream: BinaryIO) -> int:
    total = 0
    while part := stream.read(2**20):
        total += len(part)
    return total


@PACKERS
def test_a_bomb_is_refused_before_it_fills_the_memory(pack: Pack) -> None:
    bomb = pack(bytes(70 * 2**20))
    with pytest.raises(UserError, match=r"unpacks to \d+ times its size"):
        _drain(opened(io.BytesIO(bomb), "qa.gz"))
    assert _drain(opened(io.BytesIO(pack(bytes(30 * 2**20))), "qa.gz")) == 30 * 2**20


def test_zstd_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "qa.jsonl").write_bytes(zstd(TEXT))
    with (tmp_path / "qa.jsonl").open("rb") as stream, pytest.raises(UserError, match="zstd") as error:
        opened(stream, "qa.jsonl")
    assert "plume-lm[zstd]" in str(error.value.hint)


@given(st.sampled_from([b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=300))
def test_any_bytes_are_text_or_damage(mark: bytes, content: bytes) -> None:
    with contextlib.suppress(DamagedArchive, UserError):
        assert isinstance(opened(io.BytesIO(mark + content), "qa").read(), bytes)
