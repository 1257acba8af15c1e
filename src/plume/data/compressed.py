"""Compressed files are read as what they hold: gzip and zstd, known by their first bytes whatever the name.

Both may be several archives one after another. What was unpacked before a fault is delivered before the fault.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from plume.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ZSTD_MARK = b"\x28\xb5\x2f\xfd"
_SKIPPED = tuple(bytes((0x50 + number, 0x2A, 0x4D, 0x18)) for number in range(16))  # zstd frames without data
_SLICE = 1024  # compressed bytes at a time: zstd makes at most 32 MiB of them
_BUFFER = 256 * 1024
_MOST_UNPACKED = 64 * 2**20  # bytes that may come out before the ratio counts
_MOST_RATIO = 200


class DamagedArchive(OSError):
    """The archive is cut short, or its bytes are not what was once written."""


class _Member(Protocol):
    """One archive of those in a file."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Kind:
    """A sort of archive: how a member begins, what unpacks it, and the error of its library."""

    name: str
    marks: tuple[bytes, ...]
    member: Callable[[], _Member]
    error: type[Exception]


_GZIP = _Kind("gzip", (b"\x1f\x8b",), lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS + 16), zlib.error)


def opened(stream: BinaryIO, file: str) -> BinaryIO:
    """The stream itself, or the text of the archive that it is; neither needs to be seekable.

    Reading raises DamagedArchive where the archive cannot be read further, and UserError when it unpacks to
    far more than any data would. Raises UserError when the library for it is missing.
    """
    head = stream.read(4)
    while len(head) < 4 and (more := stream.read(4 - len(head))):
        head += more
    if stream.seekable():
        stream.seek(-len(head), io.SEEK_CUR)
        whole = stream
    else:
        whole = cast(BinaryIO, io.BufferedReader(_Joined(head, stream), _BUFFER))
    kind = _GZIP if head.startswith(_GZIP.marks) else _zstd(file) if head == _ZSTD_MARK else None
    return cast(BinaryIO, io.BufferedReader(_Unpacked(whole, file, kind), _BUFFER)) if kind else whole


def _zstd(file: str) -> _Kind:
    try:
        import zstandard
    except ModuleNotFoundError:
        hint = f"pip install 'plume-lm[zstd]', or unpack it: zstd -d {file}"
        raise UserError(f"{file} is compressed with zstd, and the library that reads it is missing", hint) from None
    context = zstandard.ZstdDecompressor()
    marks = (_ZSTD_MARK, *_SKIPPED)
    return _Kind("zstd", marks, lambda: cast(_Member, context.decompressobj()), zstandard.ZstdError)


class _Joined(io.RawIOBase):
    """The bytes already taken from a stream, and then the rest of it."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data, self._head = (self._head, b"") if self._head else (self._stream.read(len(view)), b"")
        view[: len(data)] = data
        return len(data)


class _Unpacked(io.RawIOBase):
    """The bytes inside an archive, a slice at a time."""

    def __init__(self, stream: BinaryIO, file: str, kind: _Kind) -> None:
        self._stream = stream
        self._file = file
        self._kind = kind
        self._member: _Member | None = None
        self._rest = b""  # compressed bytes that stand after the end of a member
        self._ready = memoryview(b"")
        self._taken = self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while not self._ready:
            if not (data := self._next_slice()):
                return 0
            self._ready = memoryview(self._unpack(data))
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _next_slice(self) -> bytes:
        """Some compressed bytes, or none at the end of the last member."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        data = self._stream.read(_SLICE)
        self._taken += len(data)
        if not data and self._member:
            raise DamagedArchive(f"the {self._kind.name} archive is cut short: its end is missing")
        return data

    def _unpack(self, data: bytes) -> bytes:
        if not self._member:
            if not (data := self._at_member(data)):
                return b""
            self._member = self._kind.member()
        try:
            unpacked = self._member.decompress(data)
        except self._kind.error as error:
            raise DamagedArchive(f"the {self._kind.name} archive is damaged ({error})") from None
        if self._member.eof:
            self._rest = self._member.unused_data
            self._member = None
        self._given += len(unpacked)
        if self._given > _MOST_UNPACKED and self._given > _MOST_RATIO * self._taken:
            ratio = self._given // max(1, self._taken)
            message = f"{self._file} unpacks to {ratio} times its size: no data does that, it is refused"
            raise UserError(message, "if it is what you meant, unpack it first and name the unpacked file")
        return unpacked

    def _at_member(self, data: bytes) -> bytes:
        """The bytes from the beginning of a further member on; zeros may pad the end of the file."""
        data = data.lstrip(b"\0")
        while data and len(data) < 4 and (more := self._stream.read(_SLICE)):
            self._taken += len(more)
            data += more
        if data and not data.startswith(self._kind.marks):
            raise DamagedArchive(f"something that is not {self._kind.name} stands after the end of the archive")
        return data
