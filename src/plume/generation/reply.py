"""One answer on its way: its settings, its constraint and its text, fed with one row of logits at a time.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from plume.errors import PlumeError
from plume.generation.sample import Pick, Sampler, Stage
from plume.generation.stop import TextStream
from plume.models.bundle import Bundle
from plume.types import Chunk, FinishReason, Grammar, Sampling, TokenLogprob

_TRIES = 8  # choices that leave no room for an ending, before the shortest ending is taken


@dataclass(frozen=True, slots=True)
class Request:
    """What to decode. Without `reply` the text continues the prompt, and beyond the model's context it goes on from
    the latest half of it.

    What was read of a prompt is used again for requests of the same `scope` alone: how soon an answer comes would
    otherwise tell one person what another has asked (vLLM's CVE-2025-46570).
    """

    ids: tuple[int, ...]
    sampling: Sampling
    grammar: Grammar | None = None
    reply: bool = True
    scope: str = ""


class Reply:
    """The answer number `choice` to a request. `read` are the ids the model is to have read, `chunks` what was said,
    `finish` is set at the end, and `mean_logprob` compares answers when the best of several are wanted."""

    def __init__(self, bundle: Bundle, request: Request, choice: int) -> None:
        self.request, self.choice = request, choice
        self.finish: FinishReason | None = None
        self._context = bundle.model.context_length
        self._stop_ids = bundle.stop_ids
        sampling = request.sampling
        self._sampler = Sampler(sampling, request.ids, choice)
        self._constraint = request.grammar.start() if request.grammar else None
        self._text = TextStream(
            bundle.tokenizer, bundle.stop_ids | set(sampling.stop_token_ids), sampling.stop, reply=request.reply
        )
        self.chunks: list[Chunk] = []
        self._limit = limit(request, bundle)
        self.read = list(request.ids) if request.reply else list(request.ids)[1 - self._context :]

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is the choice, with nothing to report and nothing to rule out."""
        return self._constraint is None and self._sampler.plain

    @property
    def ranked(self) -> bool:
        """Whether it is one of several of which only the best are wanted, and so to be held back."""
        sampling = self.request.sampling
        return sampling.best_of is not None and sampling.best_of > sampling.n

    def whole(self, choice: int) -> Chunk:
        """All that was said, as the answer number `choice`."""
        ids = tuple(id for chunk in self.chunks for id in chunk.ids)
        logprobs = tuple(one for chunk in self.chunks for one in chunk.logprobs)
        text = "".join(chunk.text for chunk in self.chunks)
        return Chunk(text, ids, self.finish, logprobs if self.request.sampling.logprobs is not None else (), choice)

    @property
    def mean_logprob(self) -> float:
        """The mean log-probability of its tokens, where log-probabilities are counted."""
        logprobs = [one.logprob for chunk in self.chunks for one in chunk.logprobs]
        return sum(logprobs) / max(1, len(logprobs))

    def take(self, logits_V: Tensor) -> Chunk:
        """Choose the next token. Raises PlumeError when the logits are not numbers."""
        return self.push(*self._choose(logits_V))

    def push(self, id: int, logprob: TokenLogprob | None = None) -> Chunk:
        """One more token: the text it makes certain, and the finish if it is the last."""
        self._sampler.push(id)
        self.read.append(id)
        piece = self._text.push(id)
        if self._text.finish is None:
            piece += self._close(id)
        self.finish = self._text.finish
        self.chunks.append(Chunk(piece, (id,), self.finish, (logprob,) if logprob else (), self.choice))
        if self.finish and self.request.grammar:
            self._judge(self.request.grammar)
        return self.chunks[-1]

    def stages(self, logits_V: Tensor) -> Iterator[Stage]:
        """What each setting leaves of the next token's scores; nothing is chosen."""
        return self._sampler.stages(logits_V, self._constraint.allowed_V() if self._constraint else None)

    def best(self, logprobs_V: Tensor, count: int) -> list[tuple[float, int]]:
        """At most so many tokens that may come next, with their scores under the settings, the highest first."""
        allowed_V = self._constraint.allowed_V() if self._constraint else None
        stage = self._sampler.shaped(logprobs_V, allowed_V)
        scores, places = stage.scores_N.topk(min(count, len(stage.scores_N)))
        ids = (places if stage.ids_N is None else stage.ids_N[places]).tolist()
        found = [(score, id) for score, id in zip(scores.tolist(), ids, strict=True) if score > -math.inf]
        if self._constraint is None:
            return found
        room = self._limit - len(self.chunks) - 1
        fitting = [one for one in found if one[1] in self._stop_ids or self._constraint.fits(one[1], room)]
        return fitting or [(float(logprobs_V[id]), id) for id in self._ending()[:1] if found]

    def fork(self) -> Reply:
        """The same answer so far, to go on differently."""
        twin = copy.copy(self)
        twin._sampler, twin._text = self._sampler.fork(), self._text.fork()
        twin._constraint = self._constraint.fork() if self._constraint else None
        twin.read, twin.chunks = self.read.copy(), self.chunks.copy()
        return twin

    def slide(self) -> bool:
        """Whether the context is full; then `read` becomes the latest half of itself, to be read again."""
        if len(self.read) < self._context:
            return False
        self.read = self.read[-(self._context // 2) :]
        return True

    def _close(self, id: int) -> str:
        """After a token that ended nothing by itself: the text is over when its constraint or the limit says so."""
        full = len(self.chunks) + 1 >= self._limit
        if self._constraint:
            self._constraint.advance(id)
            if self._constraint.done or (full and self._constraint.accepting):
                return self._text.end("stop")
        return self._text.end("length") if full else ""

    def _choose(self, logits_V: Tensor) -> Pick:
        if self._constraint is None:
            return self._sampler.choose(logits_V)
        allowed_V = self._constraint.allowed_V()
        room = self._limit - len(self.chunks) - 1
        for _ in range(_TRIES):
            if not bool(allowed_V.any()):
                break
            picked = self._sampler.choose(logits_V, allowed_V)
            if picked.id in self._stop_ids or self._constraint.fits(picked.id, room):
                return picked
            allowed_V = allowed_V.clone()
            allowed_V[picked.id] = False
            if not bool(logits_V[allowed_V].isfinite().any()):
                break  # all that the model would say leaves no room
        return self._sampler.forced(logits_V, self._ending())

    def _ending(self) -> Sequence[int]:
        assert self._constraint is not None
        return self._constraint.shortest_end()[:1] or sorted(self._stop_ids)

    def _judge(self, grammar: Grammar) -> None:
        """What was promised is checked by somebody else before it leaves."""
        text = self.whole(self.choice).text
        if self.finish != "stop" or not grammar.valid(text):
            raise PlumeError(
                f"the answer does not satisfy its constraint: {text[:200]!r}",
                "this is a fault of Plume: please report it with the constraint and the model",
            )


def limit(request: Request, bundle: Bundle) -> int:
    """The most tokens that an answer may have: what was asked for, and what the context can hold."""
    if not request.reply:
        return request.sampling.max_new_tokens
    return min(request.sampling.max_new_tokens, bundle.model.context_length - len(request.ids))
