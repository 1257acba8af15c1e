"""Ids become final text: no half character ever leaves, nor any part of a stop string."""

from __future__ import annotations

import codecs
import copy
from collections.abc import Collection

from plume.types import FinishReason, Tokenizer


class TextStream:
    """Feed ids one by one; each call gives the text that is certain by now. `finish` is set at the end.

    With `reply` the text starts a reply, so a space that the tokenizer itself prepends is dropped.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_ids: Collection[int], stop: tuple[str, ...] = (), *, reply: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._drop_space = reply and tokenizer.prepends_space
        self._held = ""
        self.finish: FinishReason | None = None

    def fork(self) -> TextStream:
        """The same text so far, to go on differently."""
        twin = copy.copy(self)
        twin._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        twin._decoder.setstate(self._decoder.getstate())
        return twin

    def push(self, id: int) -> str:
        """The text made certain by one more id."""
        if id in self._stop_ids:
            self.finish = "stop"
            return self._flush()
        self._take(self._decoder.decode(self._tokenizer.token_bytes(id)))
        found = [at for text in self._stop if (at := self._held.find(text)) >= 0]
        if found:
            self.finish = "stop"
            text, self._held = self._held[: min(found)], ""
            return text
        keep = max((_overlap(self._held, text) for text in self._stop), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text

    def end(self, reason: FinishReason) -> str:
        """No more ids come: the text that was still held back."""
        self.finish = reason
        return self._flush()

    def _flush(self) -> str:
        self._take(self._decoder.decode(b"", final=True))
        text, self._held = self._held, ""
        return text

    def _take(self, text: str) -> None:
        if self._drop_space and text:
            text, self._drop_space = text.removeprefix(" "), False
        self._held += text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
