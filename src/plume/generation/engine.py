"""One engine decodes and scores for every command: prompts in as ids, text out in final pieces.

Shape suffixes: B batch, T time, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from plume.errors import UserError
from plume.generation.sample import Sampler
from plume.generation.stop import TextStream
from plume.models.bundle import Bundle
from plume.types import Answer, Chunk, Encoded, Message, Sampling, Score

_BATCH = 64
_SCORED = 4096  # tokens read together: 64 rows of 1,024 took three times the memory of training
_LOGIT_ROWS = 2048


class Engine:
    """Asks one bundle. Greedy answers and seeded samples do not depend on what else is in the batch."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._model = bundle.model
        self._context = bundle.model.context_length
        self._device = next(bundle.model.parameters()).device

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The ids that ask for a reply. Raises UserError when they fill the model's context, or are no text."""
        for message in messages:
            check_text(message.content)
        ids = self.bundle.template.encode(messages, self.bundle.tokenizer, reply=True).ids
        if len(ids) >= self._context:
            raise UserError(
                f"the question has {len(ids)} tokens; the model's context of {self._context} must hold the answer too",
                "shorten it, or train with a larger max_length",
            )
        return ids

    @torch.inference_mode()
    def stream(self, ids: Sequence[int], sampling: Sampling, *, reply: bool = True) -> Iterator[Chunk]:
        """Decode one prompt; closing the iterator cancels. Without `reply` the text continues the prompt, and
        beyond the context it goes on from the latest half of it."""
        text = TextStream(self.bundle.tokenizer, self.bundle.stop_ids, sampling.stop, reply=reply)
        sampler = Sampler(sampling, ids)
        read = list(ids)[-self._context + 1 :] if not reply else list(ids)
        self._model.train(False)
        hidden, state = self._model(self._tensor([read]))
        for count in range(1, sampling.max_new_tokens + 1):
            id = sampler.choose(self._model.head(hidden[:, -1])[0]).id
            sampler.push(id)
            piece = text.push(id)
            read.append(id)
            full = len(read) >= self._context and reply
            if text.finish is None and (count == sampling.max_new_tokens or full):
                piece += text.end("length")
            yield Chunk(piece, (id,), text.finish)
            if text.finish:
                return
            if len(read) >= self._context:
                read = read[-(self._context // 2) :]
                hidden, state = self._model(self._tensor([read]))
            else:
                hidden, state = self._model(self._tensor([[id]]), state)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answers to several prompts, in order; longer lists go through in batches of similar length."""
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers: dict[int, Answer] = {}
        self._model.train(False)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            answers |= self._batch({row: prompts[row] for row in rows}, sampling)
        return [answers[index] for index in range(len(prompts))]

    def _batch(self, prompts: dict[int, Sequence[int]], sampling: Sampling) -> dict[int, Answer]:
        tokenizer, stop_ids = self.bundle.tokenizer, self.bundle.stop_ids
        streams = {row: TextStream(tokenizer, stop_ids, sampling.stop) for row in prompts}
        samplers = {row: Sampler(sampling, prompts[row], row) for row in prompts}
        ids: dict[int, list[int]] = {row: [] for row in prompts}
        texts = dict.fromkeys(prompts, "")
        live = list(prompts)
        lengths_B = torch.tensor([len(prompts[row]) for row in live], device=self._device)
        hidden, state = self._model(self._tensor([prompts[row] for row in live]), None, lengths_B)
        last_BC = hidden[torch.arange(len(live), device=self._device), lengths_B - 1]
        while True:
            logits_BV = self._model.head(last_BC)
            likeliest = logits_BV.argmax(dim=-1).tolist()
            going = []
            for position, row in enumerate(live):
                stream, sampler = streams[row], samplers[row]
                id = likeliest[position] if sampler.plain else sampler.choose(logits_BV[position]).id
                sampler.push(id)
                ids[row].append(id)
                texts[row] += stream.push(id)
                full = len(ids[row]) == sampling.max_new_tokens or len(prompts[row]) + len(ids[row]) >= self._context
                if stream.finish is None and full:
                    texts[row] += stream.end("length")
                if stream.finish is None:
                    going.append(position)
            if not going:
                break
            if len(going) < len(live):
                live = [live[position] for position in going]
                state = state.select(torch.tensor(going, device=self._device))
            hidden, state = self._model(self._tensor([[ids[row][-1]] for row in live]), state)
            last_BC = hidden[:, -1]
        return {row: Answer(texts[row], tuple(ids[row]), streams[row].finish or "length") for row in prompts}

    @torch.inference_mode()
    def score(self, rows: Sequence[Encoded]) -> list[Score]:
        """Likelihood of the trained tokens of each row. Rows longer than the context are read in windows."""
        windows = [(row, window) for row, encoded in enumerate(rows) for window in _windows(encoded, self._context)]
        windows.sort(key=lambda pair: len(pair[1].ids))
        totals = [Score(0.0, 0, 0.0, 0)] * len(rows)
        self._model.train(False)
        for batch in _batches(windows):
            for (row, _), part in zip(batch, self._score([window for _, window in batch]), strict=True):
                totals[row] = _add(totals[row], part)
        return totals

    def _score(self, batch: Sequence[Encoded]) -> Iterator[Score]:
        lengths_B = torch.tensor([len(encoded.ids) for encoded in batch], device=self._device)
        hidden, _ = self._model(self._tensor([encoded.ids for encoded in batch]), None, lengths_B)
        for position, encoded in enumerate(batch):
            at = [index - 1 for index in range(1, len(encoded.ids)) if encoded.trained[index]]
            targets = [encoded.ids[index + 1] for index in at]
            losses = torch.cat(
                [
                    F.cross_entropy(
                        self._model.head(hidden[position, at[start : start + _LOGIT_ROWS]]).float(),
                        torch.tensor(targets[start : start + _LOGIT_ROWS], device=self._device),
                        reduction="none",
                    )
                    for start in range(0, len(at), _LOGIT_ROWS)
                ]
                or [torch.zeros(0)]
            ).double()
            sizes = torch.tensor([len(self.bundle.tokenizer.token_bytes(id)) for id in targets], dtype=torch.long)
            text = losses.cpu()[sizes > 0].sum()
            yield Score(float(losses.sum()), len(targets), float(text), int(sizes.sum()))

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Right-padded ids (B, T)."""
        longest = max(len(row) for row in rows)
        pad = next(iter(self.bundle.stop_ids), 0)
        return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self._device)


def check_text(text: str) -> None:
    """Raise UserError for bytes that the terminal's encoding could not read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start + 1} of the text is not valid UTF-8", "use a UTF-8 terminal (LC_ALL=C.UTF-8)"
        ) from None


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
