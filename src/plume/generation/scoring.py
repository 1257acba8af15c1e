"""How likely the model finds a given reply: teacher-forced log-likelihoods.

Shape suffixes: B batch, T time, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from plume.errors import UserError
from plume.models.bundle import Bundle
from plume.types import Encoded, Score, TokenLogprob

_BATCH = 64
_SCORED = 4096  # tokens read together: 64 rows of 1,024 took three times the memory of training
_LOGIT_ROWS = 2048


@torch.inference_mode()
def score(bundle: Bundle, rows: Sequence[Encoded]) -> list[Score]:
    """Likelihood of the trained tokens of each row. Rows longer than the context are read in windows."""
    context = bundle.model.context_length
    windows = [(row, window) for row, encoded in enumerate(rows) for window in _windows(encoded, context)]
    windows.sort(key=lambda pair: len(pair[1].ids))
    totals = [Score(0.0, 0, 0.0, 0)] * len(rows)
    bundle.model.train(False)
    for batch in _batches(windows):
        for (row, _), part in zip(batch, _score(bundle, [window for _, window in batch]), strict=True):
            totals[row] = _add(totals[row], part)
    return totals


@torch.inference_mode()
def prompt_logprobs(bundle: Bundle, rows: Sequence[Sequence[int]], top: int) -> list[list[TokenLogprob | None]]:
    """How likely the model finds each token after those before it, with the `top` likeliest there; None for the first,
    which nothing precedes. Raises UserError for a row longer than the context."""
    context = bundle.model.context_length
    for ids in rows:
        if len(ids) > context:
            raise UserError(f"{len(ids)} tokens are more than the model's context of {context}", "shorten the text")
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    windows = [(row, Encoded(tuple(rows[row]), ())) for row in order if rows[row]]
    found: list[list[TokenLogprob | None]] = [[] for _ in rows]
    bundle.model.train(False)
    for batch in _batches(windows):
        for (row, _), told in zip(batch, _told(bundle, [encoded.ids for _, encoded in batch], top), strict=True):
            found[row] = told
    return found


def _told(bundle: Bundle, batch: Sequence[Sequence[int]], top: int) -> Iterator[list[TokenLogprob | None]]:
    device = next(bundle.model.parameters()).device
    lengths_B = torch.tensor([len(ids) for ids in batch], device=device)
    hidden_BTC, _ = bundle.model(padded(batch, bundle, device), None, lengths_B)
    for position, ids in enumerate(batch):
        told: list[TokenLogprob | None] = [None]
        for start in range(0, len(ids) - 1, _LOGIT_ROWS):
            targets = ids[start + 1 : start + 1 + _LOGIT_ROWS]
            logits_TV = bundle.model.head(hidden_BTC[position, start : start + len(targets)])
            logprobs_TV = logits_TV.float().log_softmax(dim=-1)
            own = logprobs_TV.gather(1, torch.tensor(targets, device=device)[:, None])[:, 0].tolist()
            values, likeliest = logprobs_TV.topk(min(top, logprobs_TV.shape[-1]))
            best = zip(likeliest.tolist(), values.tolist(), strict=True)
            for id, logprob, (others, theirs) in zip(targets, own, best, strict=True):
                told.append(TokenLogprob(id, logprob, tuple(zip(others, theirs, strict=True))))
        yield told


def _score(bundle: Bundle, batch: Sequence[Encoded]) -> Iterator[Score]:
    device = next(bundle.model.parameters()).device
    ids_BT = padded([encoded.ids for encoded in batch], bundle, device)
    hidden, _ = bundle.model(ids_BT, None, torch.tensor([len(encoded.ids) for encoded in batch], device=device))
    for position, encoded in enumerate(batch):
        at = [index - 1 for index in range(1, len(encoded.ids)) if encoded.trained[index]]
        targets = [encoded.ids[index + 1] for index in at]
        losses = torch.cat(
            [
                F.cross_entropy(
                    bundle.model.head(hidden[position, at[start : start + _LOGIT_ROWS]]).float(),
                    torch.tensor(targets[start : start + _LOGIT_ROWS], device=device),
                    reduction="none",
                )
                for start in range(0, len(at), _LOGIT_ROWS)
            ]
            or [torch.zeros(0)]
        ).double()
        sizes = torch.tensor([len(bundle.tokenizer.token_bytes(id)) for id in targets], dtype=torch.long)
        text = losses.cpu()[sizes > 0].sum()
        yield Score(float(losses.sum()), len(targets), float(text), int(sizes.sum()))


def padded(rows: Sequence[Sequence[int]], bundle: Bundle, device: torch.device) -> Tensor:
    """Right-padded ids (B, T)."""
    longest = max(len(row) for row in rows)
    pad = next(iter(bundle.stop_ids), 0)
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)


def _windows(encoded: Encoded, context: int) -> Iterator[Encoded]:
    """Stretches of a row that fit the context; each starts on the last token of the one before, so that every
    trained token is predicted exactly once."""
    for start in range(0, max(1, len(encoded.ids) - 1), context - 1 or 1):
        yield Encoded(encoded.ids[start : start + context], encoded.trained[start : start + context])


def _batches(windows: Sequence[tuple[int, Encoded]]) -> Iterator[Sequence[tuple[int, Encoded]]]:
    """Neighbours of windows in order of length, as many as may be read together."""
    start = 0
    while start < len(windows):
        count = 1
        while start + count < len(windows) and count < _BATCH:
            if (count + 1) * len(windows[start + count][1].ids) > _SCORED:
                break
            count += 1
        yield windows[start : start + count]
        start += count


def _add(a: Score, b: Score) -> Score:
    return Score(a.loss + b.loss, a.tokens + b.tokens, a.text_loss + b.text_loss, a.bytes + b.bytes)
