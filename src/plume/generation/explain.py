"""Why an answer reads as it does: at each token what the model held likely, what every setting did to that, and what
was taken. The answer is the one that comes without explanation. Shape suffixes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plume.errors import UserError
from plume.generation import filters
from plume.generation.reading import read_through
from plume.generation.reply import Reply, Request
from plume.generation.sample import Stage, check_logits
from plume.models.bundle import Bundle
from plume.types import Chunk, Sampling

_NOTABLE = 3  # tokens named for what a setting did to them
_MOVED = 0.001  # of probability: less is not worth naming


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token, its probability under the model and when the choice was made, and the setting that removed it."""

    id: int
    before: float
    after: float
    removed_by: str | None


@dataclass(frozen=True, slots=True)
class Effect:
    """What one setting did: how many tokens it removed and left, the likeliest of those removed with their
    probability, and of those left the most changed with theirs before and after."""

    setting: str
    removed: int
    left: int
    gone: tuple[tuple[int, float], ...]
    moved: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One token: the likeliest candidates, the settings in the order of their work, and what was taken, last in
    `chunk.ids`. `left` tokens could have been."""

    chunk: Chunk
    candidates: tuple[Candidate, ...]
    effects: tuple[Effect, ...]
    left: int


def explain(bundle: Bundle, request: Request, shown: int = 6) -> Iterator[Explanation]:
    """Decode one prompt and say of each token why. Raises UserError for what is not decided token by token."""
    _check(request.sampling)
    model, reply = bundle.model, Reply(bundle, request, 0)
    hidden_BTC, state = read_through(model, reply.read)
    while True:
        with torch.inference_mode():
            logits_V = model.head(hidden_BTC[0, -1]).float().cpu()
        check_logits(logits_V)
        stages = list(reply.stages(logits_V))
        chunk = reply.take(logits_V)
        yield _explained(stages, chunk, shown)
        if reply.finish:
            return
        if reply.slide():
            hidden_BTC, state = read_through(model, reply.read)
        else:
            with torch.inference_mode():
                hidden_BTC, state = model(torch.tensor([reply.read[-1:]], device=hidden_BTC.device), state)


def _explained(stages: Sequence[Stage], chunk: Chunk, shown: int) -> Explanation:
    size = len(stages[0].scores_N)
    scores_SV = torch.stack([stage.scores_V(size) for stage in stages])
    probabilities_SV, kept_SV = scores_SV.softmax(dim=-1), scores_SV > filters.NONE
    left = int(kept_SV[-1].sum())
    best = [chunk.ids[-1], *probabilities_SV[-1].topk(min(shown, left)).indices.tolist()]
    best += probabilities_SV[0].topk(min(shown, size)).indices.tolist()
    candidates = sorted(
        (
            Candidate(
                id, float(probabilities_SV[0, id]), float(probabilities_SV[-1, id]), _remover(stages, kept_SV, id)
            )
            for id in dict.fromkeys(best)
        ),
        key=lambda candidate: (-candidate.after, -candidate.before),
    )
    effects = tuple(
        _effect(stage.name, probabilities_SV[number : number + 2], kept_SV[number : number + 2])
        for number, stage in enumerate(stages[1:])
    )
    return Explanation(chunk, tuple(candidates), effects, left)


def _effect(setting: str, probabilities_2V: Tensor, kept_2V: Tensor) -> Effect:
    before_V, after_V = probabilities_2V
    gone_V = kept_2V[0] & ~kept_2V[1]
    gone = (before_V * gone_V).topk(min(_NOTABLE, int(gone_V.sum()))).indices.tolist()
    changes_V = ((after_V - before_V) * kept_2V[1]).abs()
    moved = [id for id in changes_V.topk(min(_NOTABLE, len(changes_V))).indices.tolist() if changes_V[id] >= _MOVED]
    return Effect(
        setting,
        int(gone_V.sum()),
        int(kept_2V[1].sum()),
        tuple((id, float(before_V[id])) for id in gone),
        tuple((id, float(before_V[id]), float(after_V[id])) for id in moved),
    )


def _remover(stages: Sequence[Stage], kept_SV: Tensor, id: int) -> str | None:
    return next((stage.name for stage, kept in zip(stages, kept_SV[:, id].tolist(), strict=True) if not kept), None)


def _check(sampling: Sampling) -> None:
    several = {"num_beams": sampling.num_beams, "n": sampling.n, "best_of": sampling.best_of or 1}
    for name, count in several.items():
        if count > 1:
            raise UserError(
                f"{name}={count}: one answer that is chosen token by token can be explained, not several",
                f"leave {name} out",
            )
    if sampling.prompt_lookup_num_tokens:
        raise UserError(
            "prompt_lookup_num_tokens changes how soon an answer comes, not the answer: there is nothing to explain",
            "leave prompt_lookup_num_tokens out",
        )
