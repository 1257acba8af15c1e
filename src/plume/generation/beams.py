"""Beam search: the likeliest whole answers instead of the likeliest next tokens, as transformers searches for them.

Several beginnings go on side by side; at each step the best continuations of all of them together are kept.
Shape suffixes: B beams, T time, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from plume.errors import PlumeError, UserError
from plume.generation.reading import read
from plume.generation.reply import Reply, Request, limit
from plume.generation.sample import check_logits
from plume.models.bundle import Bundle
from plume.types import Chunk, Sampling


class _Beam(NamedTuple):
    """A beginning and the sum of its log-probabilities, or a whole answer and that sum under the length penalty."""

    score: float
    reply: Reply
    source: int = 0


def beam_search(bundle: Bundle, request: Request) -> Iterator[Chunk | None]:
    """The `n` best answers, whole, at the end; None for each step before. Scores, length penalty and the three kinds
    of early stopping are transformers'. Raises PlumeError when fewer than `n` answers exist."""
    sampling, model = request.sampling, bundle.model
    most = limit(request, bundle)
    _check_context(request, model.context_length)
    kept = max(2, 1 + len(bundle.stop_ids | set(sampling.stop_token_ids))) * sampling.num_beams
    running, over = [_Beam(0.0, Reply(bundle, request, 0))], list[_Beam]()
    hidden_BTC, state = yield from read(model, request.ids)
    for length in range(1, most + 1):
        with torch.inference_mode():
            logits_BV = model.head(hidden_BTC[:, -1])
            check_logits(logits_BV)
            logprobs_BV = logits_BV.float().log_softmax(dim=-1).cpu()
            before, (running, ended) = running, _extended(running, logprobs_BV, kept, sampling.num_beams)
            ended = [beam._replace(score=beam.score / length**sampling.length_penalty) for beam in ended]
            over = sorted([*over, *ended], key=lambda beam: -beam.score)[: sampling.num_beams]
            if _settled(running, over, sampling, length, most):
                break
            device = hidden_BTC.device
            rows = [beam.source for beam in running]
            if rows != list(range(len(before))):
                state = state.select(torch.tensor(rows, device=device))
            hidden_BTC, state = model(torch.tensor([[beam.reply.read[-1]] for beam in running], device=device), state)
        yield None
    if not over:
        raise PlumeError(
            "no beam can go on: the model or the settings exclude every token that may come next",
            "leave num_beams out: the error then names what excludes them",
        )
    if len(over) < sampling.n:
        raise PlumeError(
            f"there are only {len(over)} different answers, and n={sampling.n} were asked for", f"set n={len(over)}"
        )
    for choice, beam in enumerate(over[: sampling.n]):
        yield beam.reply.whole(choice)


def _extended(
    beams: Sequence[_Beam], logprobs_BV: torch.Tensor, kept: int, width: int
) -> tuple[list[_Beam], list[_Beam]]:
    """The best continuations: those that go on, and those that have ended, which count only among the best `width`."""
    found = [
        (beam.score + logprob, row, id)
        for row, beam in enumerate(beams)
        for logprob, id in beam.reply.best(logprobs_BV[row], kept)
    ]
    found.sort(key=lambda one: -one[0])
    running: list[_Beam] = []
    ended: list[_Beam] = []
    for rank, (score, row, id) in enumerate(found[:kept]):
        if rank >= width and len(running) == width:
            break
        reply = beams[row].reply.fork()
        reply.push(id)
        if reply.finish is None and len(running) < width:
            running.append(_Beam(score, reply, row))
        elif reply.finish and rank < width:
            ended.append(_Beam(score, reply))
    return running, ended


def _settled(running: Sequence[_Beam], over: Sequence[_Beam], sampling: Sampling, length: int, most: int) -> bool:
    """Whether nothing better can come, as `early_stopping` judges it."""
    if not running:
        return True
    if len(over) < sampling.num_beams:
        return False
    if sampling.early_stopping is True:
        return True
    hoped = most if sampling.early_stopping == "never" and sampling.length_penalty > 0 else length
    return bool(running[0].score / hoped**sampling.length_penalty <= over[-1].score)


def _check_context(request: Request, context: int) -> None:
    if len(request.ids) + request.sampling.max_new_tokens > context and not request.reply:
        raise UserError(
            f"beams cannot go on beyond the model's context of {context}: {len(request.ids)} tokens are read, and "
            f"max_new_tokens is {request.sampling.max_new_tokens}",
            "set a smaller max_new_tokens, or leave num_beams out",
        )
