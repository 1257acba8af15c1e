"""A message's vector as it lies in a row: of which model it is, and numbers of 16 bits.

What computes vectors is a value of the caller's: nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plume.errors import PlumeError, UserError

Matrix = npt.NDArray[np.float32]

_FORM = b"\x02"  # begins neither JSON nor a sealed body
_NUMBER = np.dtype("<f2")
_MOST = 0xFFFF  # bytes of a model's name


@dataclass(frozen=True, slots=True)
class Embedder:
    """`embed` gives a row of numbers for each text. `model` names what computes them, and changes whenever their
    meaning does: vectors of another model are not compared but computed anew."""

    model: str
    embed: Callable[[Sequence[str]], Matrix]

    def unit(self, texts: Sequence[str]) -> Matrix:
        """Rows of length 1, as 16 bits hold them; a row of zeros stays one."""
        rows = np.asarray(self.embed(texts), dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
            raise PlumeError(f"{self.model} gave {rows.shape} for {len(texts)} texts, or what is no number")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows / np.where(lengths == 0, 1, lengths)).astype(_NUMBER).astype(np.float32)


def vector_bytes(model: str, vector: Matrix) -> bytes:
    name = model.encode("utf-8")[:_MOST]
    return _FORM + len(name).to_bytes(2, "big") + name + vector.astype(_NUMBER).tobytes()


def vector_of(model: str, raw: bytes) -> Matrix | None:
    """None where it is of another model, or of another form."""
    name = model.encode("utf-8")[:_MOST]
    head = _FORM + len(name).to_bytes(2, "big") + name
    if not raw.startswith(head):
        return None
    return np.frombuffer(raw, _NUMBER, offset=len(head)).astype(np.float32)


def pgvector_text(vector: Matrix) -> str:
    """Five digits tell every number of 16 bits."""
    return f"[{','.join(f'{number:.5g}' for number in vector.tolist())}]"


def wrong_width(question: Matrix, kept: tuple[int, ...]) -> UserError:
    hint = "ask with the model that the messages were read with"
    return UserError(f"a vector of {question.shape} for messages of {kept} numbers", hint)
