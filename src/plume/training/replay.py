"""General text or rows mixed into fine-tuning, so that less is forgotten, and the part of them that measures it.

What an epoch draws is a function of seed and epoch alone, so a resumed run finds it again by counting.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plume.checks.run import Examined
from plume.checks.tokens import too_long
from plume.data.keys import keys_of
from plume.errors import DataError, UserError
from plume.recipe import Recipe
from plume.text.encoded import EncodedRows, Numbers
from plume.text.template import RAW, ChatTemplate, encode_example
from plume.text.tokenizer import TextTokenizer
from plume.types import Encoded, Example

_HELD = 10  # one part in so many is never drawn
_HELD_TOKENS = 8192  # of which at most so many are scored: their mean loss is known to about 0.03 nats
_SHORTEST = 64  # tokens of a window, where the data's rows are shorter


@dataclass(frozen=True, slots=True)
class Replay:
    """What may be drawn (texts in windows of `window` tokens), how many draws an epoch makes on average, and the
    windows that measure forgetting, which are never drawn."""

    file: str
    texts: tuple[Encoded, ...]
    rows: tuple[Encoded, ...]
    held: tuple[Encoded, ...]
    window: int
    draws: float
    seed: int

    @property
    def tokens(self) -> float:
        """Tokens that an epoch draws on average."""
        pool = [*self.rows, *_windows(self.texts, self.window, 0)]
        return self.draws * sum(len(row.ids) for row in pool) / max(1, len(pool))

    def of_epoch(self, epoch: int) -> list[Encoded]:
        """The draws of an epoch; windows of text begin elsewhere each time."""
        if not self.draws:
            return []
        chance = random.Random(f"{self.seed}/replay/{epoch}")
        pool = [*self.rows, *_windows(self.texts, self.window, chance.randrange(self.window))]
        count = int(self.draws) + (chance.random() < self.draws % 1)
        again, rest = divmod(count, len(pool))
        return [*pool * again, *chance.sample(pool, rest)]


@dataclass(frozen=True, slots=True)
class Shown:
    """The data's rows, and behind them what an epoch draws."""

    rows: EncodedRows
    drawn: EncodedRows

    @property
    def lengths(self) -> Numbers:
        lengths: Numbers = np.concatenate([self.rows.lengths, self.drawn.lengths])
        return lengths

    def stretch(self, row: int, start: int = 0, end: int | None = None) -> Encoded:
        beyond = row - len(self.rows)
        return self.rows.stretch(row, start, end) if beyond < 0 else self.drawn.stretch(beyond, start, end)


def rows_of_epoch(rows: EncodedRows, replay: Replay | None, epoch: int) -> EncodedRows | Shown:
    """The rows that an epoch shows: all of the data, and what is drawn from the replay file."""
    return Shown(rows, EncodedRows.of(replay.of_epoch(epoch))) if replay else rows


def refuse_replay(recipe: Recipe, *, from_scratch: bool) -> None:
    """Raise UserError for replay keys that nothing would read."""
    if recipe.replay_ratio is not None and not recipe.replay:
        raise UserError("replay_ratio is read with replay alone", "name the file of general text: --set replay=FILE")
    if recipe.replay and from_scratch:
        raise UserError(
            f"replay={recipe.replay}: a model from scratch has nothing to forget",
            "put the rows into DATA, or fine-tune a model: --model DIR",
        )


def make_replay(
    recipe: Recipe, general: Examined, data: EncodedRows, template: ChatTemplate, tokenizer: TextTokenizer
) -> Replay:
    """Split and encode a replay file for a recipe whose `max_length` is chosen.

    Plain text is given as the base read it, without turns. The last tenth of its tokens, or every tenth question
    of rows, is held back. Raises DataError for rows beyond `max_length`, UserError when there is too little.
    """
    longest = recipe.max_length or 1
    window = min(longest, max(_SHORTEST, int(data.lengths.max()) - 1))
    raw = ChatTemplate(RAW, tokenizer)
    asked = [example for example in general.examples if not example.is_text]
    encoded = [encode_example(example, template, tokenizer) for example in asked]
    long = list(too_long(asked, EncodedRows.of(encoded), longest))
    if long:
        raise DataError(f"{general.file}: {len(long)} rows are longer than the context", long)
    texts = [encode_example(example, raw, tokenizer) for example in general.examples if example.is_text]
    drawn_texts, held_texts = _last_part(texts)
    drawn_rows, held_rows = _every_tenth(asked, encoded)
    pool = [*drawn_rows, *_windows(drawn_texts, window, 0)]
    held = [row for row in (*held_rows, *_windows(held_texts, window, 0)) if any(row.trained[1:])]
    learnt = sum(map(_trained, pool))
    if not learnt or not held:
        raise UserError(
            f"{general.file}: too little to draw from it and to measure forgetting on a part of its own",
            "name a longer text, or at least two rows of different questions",
        )
    ratio = recipe.replay_ratio or 0.0
    wanted = int(data.taught.sum()) * ratio / (1 - ratio)
    return Replay(
        file=general.file,
        texts=tuple(drawn_texts),
        rows=tuple(drawn_rows),
        held=tuple(_bounded(held)),
        window=window,
        draws=wanted / (learnt / len(pool)),
        seed=recipe.seed,
    )


def _trained(row: Encoded) -> int:
    return sum(row.trained[1:])


def _windows(texts: Sequence[Encoded], size: int, first: int) -> list[Encoded]:
    """Stretches of `size` targets, the first of each text shorter by `first`; neighbours share one token, input
    here, target there."""
    found = []
    for text in texts:
        for start in range(-first, len(text.ids) - 1, size):
            begin, end = max(0, start), min(start + size + 1, len(text.ids))
            if end - begin > 1:
                found.append(Encoded(text.ids[begin:end], text.trained[begin:end]))
    return found


def _last_part(texts: Sequence[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
    """Texts before and after the place where the last tenth of all tokens begins; it may cut one."""
    left = sum(len(text.ids) for text in texts) * (_HELD - 1) // _HELD
    before, after = [], []
    for text in texts:
        before.append(Encoded(text.ids[:left], text.trained[:left]))
        after.append(Encoded(text.ids[left:], text.trained[left:]))
        left = max(0, left - len(text.ids))
    return [text for text in before if len(text.ids) > 1], [text for text in after if len(text.ids) > 1]


def _every_tenth(examples: Sequence[Example], encoded: Sequence[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
    """Rows to draw from and rows held back; the same question is never on both sides."""
    keys = keys_of(examples).prompt.tolist()
    questions = list(dict.fromkeys(keys))
    held = set(questions[_HELD - 1 :: _HELD] or questions[-1:])
    drawn = [row for key, row in zip(keys, encoded, strict=True) if key not in held]
    return drawn, [row for key, row in zip(keys, encoded, strict=True) if key in held]


def _bounded(rows: Sequence[Encoded]) -> Sequence[Encoded]:
    """Rows from all over, of about `_HELD_TOKENS` tokens together at most."""
    tokens = sum(len(row.ids) for row in rows)
    if tokens <= _HELD_TOKENS:
        return rows
    count = max(1, len(rows) * _HELD_TOKENS // tokens)
    return [rows[index * len(rows) // count] for index in range(count)]
