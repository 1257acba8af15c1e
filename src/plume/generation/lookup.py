"""Prompt lookup (Saxena 2023): what stood behind the last tokens before is guessed to come again, and the model reads
all of the guess at once. It is kept as far as the model itself says it, so the answer is the one without guessing.

Shape suffixes: B batch, T time, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from plume.generation.reading import read
from plume.generation.reply import Reply, Request, limit
from plume.generation.sample import check_logits
from plume.models.bundle import Bundle
from plume.types import Chunk, LanguageModel

_SIZES = (3, 2)  # tokens that must stand alike before a guess; a single one is too often wrong


class Guesser:
    """Where every few tokens stood last, learnt token by token."""

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self._ids: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        for id in ids:
            self.push(id)

    def push(self, id: int) -> None:
        for size in _SIZES:
            if len(self._ids) >= size:
                self._behind[tuple(self._ids[-size:])] = len(self._ids)
        self._ids.append(id)

    def guess(self, count: int) -> list[int]:
        """At most so many tokens, none where the last few are new."""
        for size in _SIZES:
            start = self._behind.get(tuple(self._ids[-size:]))
            if start is not None:
                return self._ids[start : start + count]
        return []


def prompt_lookup(bundle: Bundle, request: Request) -> Iterator[Chunk | None]:
    """One answer token by token, None where a stretch of the prompt was read. Each call of the model confirms up to
    `prompt_lookup_num_tokens` guessed tokens: half as many after a guess that was all wrong, twice as many after one
    that was all right."""
    model, reply = bundle.model, Reply(bundle, request, 0)
    most = width = request.sampling.prompt_lookup_num_tokens
    guesser, guess = Guesser(reply.read), list[int]()
    hidden_BTC, state = yield from read(model, reply.read)
    while True:
        said = 0
        for chunk in _confirmed(reply, _logits(model, hidden_BTC, len(guess) + 1), guess):
            guesser.push(chunk.ids[0])
            said += 1
            yield chunk
        if reply.finish:
            return
        if guess:
            width = min(most, 2 * width) if said > len(guess) else max(1, width // 2) if said == 1 else width
        if reply.slide():
            guess = []
            hidden_BTC, state = yield from read(model, reply.read)
            continue
        if said <= len(guess):
            try:
                state = state.truncate(len(reply.read) - 1)
            except ValueError:  # a recurrent model that forgets cannot go back: read again, and guess no more
                _, state = yield from read(model, reply.read[:-1])
                most = width = 0
        room = min(model.context_length - len(reply.read), limit(request, bundle) - len(reply.chunks)) - 1
        guess = guesser.guess(max(0, min(width, room)))
        with torch.inference_mode():
            ids_BT = torch.tensor([[reply.read[-1], *guess]], device=hidden_BTC.device)
            hidden_BTC, state = model(ids_BT, state)


def _confirmed(reply: Reply, logits_TV: Tensor, guess: Sequence[int]) -> Iterator[Chunk]:
    """The tokens that the answer takes behind what was read, up to the first that was guessed wrong, and that one."""
    check_logits(logits_TV)
    likeliest = logits_TV.argmax(dim=-1).tolist()
    for place, logits_V in enumerate(logits_TV):
        chunk = reply.push(likeliest[place]) if reply.plain else reply.take(logits_V)
        yield chunk
        if reply.finish or (place < len(guess) and chunk.ids[0] != guess[place]):
            return


@torch.inference_mode()
def _logits(model: LanguageModel, hidden_BTC: Tensor, count: int) -> Tensor:
    return model.head(hidden_BTC[0, -count:]).cpu()
