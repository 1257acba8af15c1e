"""What rows ask and answer, in digests of eight bytes: enough to compare millions of rows without holding any.

Among a million questions two share a digest with probability 3e-8; both then count as one question.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from plume import similar
from plume.types import Example, Message

Digests = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Keys:
    """For each row: the question of its last reply (`prompt`) and all its replies to the letter (`said`). For each
    reply: its `row`, its `answer` (NFC) and the `question` with all that was said before. `early` questions are
    answered before a conversation's last turn."""

    prompt: Digests
    said: Digests
    row: Indices
    answer: Digests
    question: Digests
    early: Digests


class Questions(Container[str]):
    """Questions by their keys (`question_key`)."""

    def __init__(self, digests: Digests) -> None:
        self._digests = np.unique(digests)

    def __contains__(self, key: object) -> bool:
        wanted = np.frombuffer(similar.digest(str(key)), dtype=np.uint64)
        place = int(np.searchsorted(self._digests, wanted[0]))
        return place < len(self._digests) and bool(self._digests[place] == wanted[0])

    def __len__(self) -> int:
        return len(self._digests)


def question_key(history: Sequence[Message]) -> str:
    """What was asked, folded: two turns with one key are the same question."""
    return "\0".join(f"{message.role}:{similar.normalise(message.said)}" for message in history)


def keys_of(examples: Iterable[Example]) -> Keys:
    """The keys of some rows, in one pass over them."""
    prompt, said, answer, question, early = (bytearray() for _ in range(5))
    row = array("q")
    for number, (example, asked) in enumerate(_folded(examples)):
        messages = example.messages
        replies = [place for place, message in enumerate(messages) if message.role == "assistant"]
        for place in replies:
            key = similar.digest("\0".join(asked[:place]))
            row.append(number)
            question += key
            answer += similar.digest(unicodedata.normalize("NFC", messages[place].said))
            if 0 < place < replies[-1]:
                early += key
        prompt += similar.digest("\0".join(asked[:-1]))
        said += similar.digest("\0".join([messages[place].said for place in replies]))
    columns = (np.frombuffer(bytes(column), dtype=np.uint64) for column in (prompt, said, answer, question, early))
    prompts, whole, answers, questions, opened = columns
    return Keys(prompts, whole, np.array(row, dtype=np.int64), answers, questions, opened)


def _folded(examples: Iterable[Example]) -> Iterator[tuple[Example, list[str]]]:
    """Each row with the key of each of its messages; plain text asks nothing, so it is not folded."""
    stream = iter(examples)
    while rows := list(islice(stream, _ROWS)):
        contents = [message.said for example in rows for message in example.messages if not example.is_text]
        folded = iter(similar.normalise_all(contents))
        for example in rows:
            if example.is_text:
                yield example, [""]
            else:
                yield example, [f"{message.role}:{next(folded)}" for message in example.messages]
