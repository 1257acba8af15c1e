"""A multipart body on its way to the disk: nothing of a file is kept in memory, and nothing of half a file anywhere."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from plume.serving.errors import ApiError, invalid, unsupported

_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
_LONGEST = 1000  # bytes of a field
_NAME = 255  # characters of a file's name
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]")


class Upload:
    """Reads a body piece by piece. `fields` are its texts, `filename`, `size` and `sha256` those of its file."""

    def __init__(self, content_type: str, target: Path) -> None:
        """Raises ApiError for a body that is not multipart."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise ApiError(400, "the body must be multipart/form-data, with a boundary", code="invalid_multipart")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self.sha256 = hashlib.sha256()  # of the file
        self._target = target
        self._file: BinaryIO | None = None
        self._whole = False
        self._part = ""
        self._text = bytearray()
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        called: dict[str, Callable[..., None]] = {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finished,
        }
        callbacks: Any = called
        self._parser = MultipartParser(options[b"boundary"], callbacks)

    def feed(self, piece: bytes) -> None:
        """Raises ApiError for what is no such body, OSError where the disk does not take it."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise ApiError(400, f"the body is not multipart/form-data: {error}", code="invalid_multipart") from None

    def finish(self) -> None:
        """The body is over: see that it is whole, and the file on the disk. Raises ApiError, OSError."""
        if not self._whole:
            raise ApiError(400, "the body ends before its last part does", code="invalid_multipart")
        if self._file is None:
            raise ApiError(400, "file is missing", param="file", code="missing_required_parameter")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        self._part = _decoded(options.get(b"name", b""))
        self._text.clear()
        if self._part == "file":
            if self._file is not None:
                raise invalid("file", "file: one file at a time")
            self.filename = _display(_decoded(options.get(b"filename", b"")))
            self._file = self._target.open("xb")
        elif self._part not in _FIELDS:
            raise unsupported(self._part or "part")
        elif self._part in self.fields:
            raise invalid(self._part, f"{self._part} is given twice")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file" and self._file is not None:
            self.size += end - start
            self._file.write(data[start:end])
            self.sha256.update(data[start:end])
        else:
            self._text.extend(data[start:end])
            if len(self._text) > _LONGEST:
                raise invalid(self._part, f"{self._part} is longer than {_LONGEST} bytes")

    def _end(self) -> None:
        if self._part != "file":
            self.fields[self._part] = _decoded(bytes(self._text))

    def _finished(self) -> None:
        self._whole = True


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _display(name: str) -> str:
    """A file's name to be shown; it is never one on this machine's disk."""
    name = _CONTROL.sub("", name.replace("\\", "/")).rpartition("/")[2]
    return name[:_NAME] or "upload"
