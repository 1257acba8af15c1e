"""From logits to the next token. Settings apply in transformers' order: bias, penalties, n-grams, then what a
constraint allows, then temperature and the filters.

Shape suffixes: B batch, V vocabulary, N what is left of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from plume.errors import PlumeError
from plume.generation import filters
from plume.generation.said import Said
from plume.types import Sampling, TokenLogprob


class Step(NamedTuple):
    """A setting at work: its name, whether it is on, and scores to scores of the same shape."""

    name: str
    on: Callable[[Sampling], bool]
    apply: Callable[[Tensor, Sampling, Said], Tensor]


# Excluding, raising and lowering single tokens, whether the next one is drawn or the likeliest.
SHAPING = (
    Step("logit_bias", lambda s: bool(s.logit_bias), lambda x, s, _: filters.logit_bias(x, s.logit_bias)),
    Step(
        "repetition_penalty",
        lambda s: s.repetition_penalty != 1,
        lambda x, s, said: filters.repetition_penalty(x, said.both.ids_N, s.repetition_penalty),
    ),
    Step(
        "frequency_penalty",
        lambda s: s.frequency_penalty != 0,
        lambda x, s, said: filters.frequency_penalty(x, said.reply.ids_N, said.reply.counts_N, s.frequency_penalty),
    ),
    Step(
        "presence_penalty",
        lambda s: s.presence_penalty != 0,
        lambda x, s, said: filters.presence_penalty(x, said.reply.ids_N, s.presence_penalty),
    ),
    Step(
        "no_repeat_ngram_size",
        lambda s: s.no_repeat_ngram_size > 0,
        lambda x, _, said: filters.without(x, said.reply_ngrams.completing()),
    ),
    Step(
        "encoder_no_repeat_ngram_size",
        lambda s: s.encoder_no_repeat_ngram_size > 0,
        lambda x, _, said: filters.without(x, said.prompt_ngrams.completing()),
    ),
)
# What a token is drawn from.
FILTERS = (
    Step("temperature", lambda s: s.temperature != 1, lambda x, s, _: x / s.temperature),
    Step("top_k", lambda s: s.top_k > 0, lambda x, s, _: filters.top_k(x, s.top_k)),
    Step("top_p", lambda s: s.top_p < 1, lambda x, s, _: filters.top_p(x, s.top_p)),
    Step("min_p", lambda s: s.min_p > 0, lambda x, s, _: filters.min_p(x, s.min_p)),
    Step("typical_p", lambda s: s.typical_p < 1, lambda x, s, _: filters.typical_p(x, s.typical_p)),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Scores after one step, of the tokens `ids_N`, or of the whole vocabulary where that is None."""

    name: str
    scores_N: Tensor
    ids_N: Tensor | None = None

    def scores_V(self, size: int) -> Tensor:
        """Scores of the whole vocabulary, with what is gone at minus infinity."""
        if self.ids_N is None:
            return self.scores_N
        return self.scores_N.new_full((size,), filters.NONE).index_copy(0, self.ids_N, self.scores_N)


class Pick(NamedTuple):
    """A chosen token, with its log-probability where the settings need one."""

    id: int
    logprob: TokenLogprob | None


class Sampler:
    """One answer's source of tokens: its settings, what it has said, and its own source of chance, so that no answer
    depends on its neighbours. `choice` counts the answers to one prompt.

    `plain` says that the likeliest token under the model is always taken and nothing else is asked: whoever has the
    logits of many answers can take it (`check_logits`, argmax) without calling `choose`.
    """

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int], choice: int = 0) -> None:
        self.sampling = sampling
        self._said = Said(sampling, prompt_ids)
        greedy = sampling.temperature == 0
        self._shaping = [step for step in SHAPING if step.on(sampling)]
        self._filters = [step for step in FILTERS if step.on(sampling) and not greedy]
        self._chance = None if greedy else torch.Generator().manual_seed(sampling.seed + choice)
        ranked = sampling.best_of is not None and sampling.best_of > sampling.n
        self._alternatives = 0 if ranked and sampling.logprobs is None else sampling.logprobs
        self.plain = greedy and not self._shaping and self._alternatives is None

    def choose(self, logits_V: Tensor, allowed_V: Tensor | None = None) -> Pick:
        """The next token, of those `allowed_V` (V,) where given. Nothing but chance moves on: the same position may be
        asked again. Raises PlumeError when the logits are no numbers, or nothing is left to choose from."""
        check_logits(logits_V)
        *_, last = self.stages(logits_V, allowed_V)
        place = int(last.scores_N.argmax()) if self._chance is None else draw(last.scores_N, self._chance)
        id = place if last.ids_N is None else int(last.ids_N[place])
        return Pick(id, None if self._alternatives is None else logprob_of(logits_V, id, self._alternatives))

    def forced(self, logits_V: Tensor, ids: Sequence[int]) -> Pick:
        """The likeliest of the few tokens that a constraint leaves at a limit, however unlikely all of them are."""
        check_logits(logits_V)
        id = max(ids, key=lambda id: float(logits_V[id]))
        return Pick(id, None if self._alternatives is None else logprob_of(logits_V, id, self._alternatives))

    def shaped(self, logits_V: Tensor, allowed_V: Tensor | None = None) -> Stage:
        """The scores before temperature and filters, none left perhaps: what a search goes by."""
        *_, last = self._shape(logits_V, allowed_V)
        return last

    def stages(self, logits_V: Tensor, allowed_V: Tensor | None = None) -> Iterator[Stage]:
        """The scores after every step, the model's own first. Raises PlumeError when no token is left."""
        for stage in self._shape(logits_V, allowed_V):
            yield stage
        if not len(stage.scores_N) or float(stage.scores_N.max()) == filters.NONE:
            possible_V = logits_V if allowed_V is None else logits_V[allowed_V]
            settings = [step.name for step in self._shaping] if bool(possible_V.isfinite().any()) else []
            raise _nothing_left(settings, constrained=allowed_V is not None)
        for step in self._filters:
            stage = Stage(step.name, step.apply(stage.scores_N, self.sampling, self._said), stage.ids_N)
            if step.name == "top_k":
                stage = _narrowed(stage)
            yield stage

    def push(self, id: int) -> None:
        """This token was taken."""
        self._said.push(id)

    def fork(self) -> Sampler:
        """The same answer so far, to go on differently; chance is shared."""
        twin = copy.copy(self)
        twin._said = self._said.fork()
        return twin

    def _shape(self, logits_V: Tensor, allowed_V: Tensor | None) -> Iterator[Stage]:
        stage = Stage("model", logits_V.float())
        yield stage
        for step in self._shaping:
            stage = Stage(step.name, step.apply(stage.scores_N, self.sampling, self._said))
            yield stage
        if allowed_V is not None:
            stage = Stage("constraint", stage.scores_N.masked_fill(~allowed_V, filters.NONE))
            yield stage if self._chance is None else _narrowed(stage)  # the likeliest is found as soon among all


def draw(scores_N: Tensor, chance: torch.Generator) -> int:
    """The place of one token drawn by its probability, from one number of `chance` whatever the vocabulary."""
    mass_N = scores_N.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    point = float(torch.rand((), dtype=torch.float64, generator=chance)) * float(mass_N[-1])
    place = int(torch.searchsorted(mass_N, point, right=True))
    return place if place < len(mass_N) else int(scores_N.argmax())  # rounding put the point at the very end


def check_logits(logits: Tensor) -> None:
    """Raise PlumeError when logits (V,) or (B, V) are no numbers."""
    if not logits.amax(dim=-1).isfinite().all():
        raise PlumeError(
            "the model's output is not a number",
            "its weights are damaged or too large: use an earlier checkpoint, or train with a lower learning_rate",
        )


def logprob_of(logits_V: Tensor, id: int, alternatives: int) -> TokenLogprob:
    """How likely the model itself held a token, and as many of the likeliest beside it."""
    logprobs_V = logits_V.float().log_softmax(dim=-1)
    values, ids = logprobs_V.topk(min(alternatives, len(logprobs_V)))
    return TokenLogprob(id, float(logprobs_V[id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def _narrowed(stage: Stage) -> Stage:
    """The same without what is excluded already, so that the steps after it have little to do."""
    kept = (stage.scores_N > filters.NONE).nonzero()[:, 0]
    return Stage(stage.name, stage.scores_N[kept], kept if stage.ids_N is None else stage.ids_N[kept])


def _nothing_left(settings: Sequence[str], *, constrained: bool) -> PlumeError:
    what = "every token that the constraint allows here" if constrained else "every token"
    guilty = " and ".join(settings)
    if settings:
        plural = "" if len(settings) > 1 else "s"
        return PlumeError(f"{guilty} exclude{plural} {what}: nothing is left to say", f"leave {guilty} out")
    return PlumeError(
        f"the model gives {what} a probability of 0: nothing is left to say",
        "ask for another shape of answer, or train the model on answers of this shape",
    )
