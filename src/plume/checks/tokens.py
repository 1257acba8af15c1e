"""D3: what the tokenizer and the template make of the rows.

`token_findings` is the whole of it for `plume check FILE --model DIR`; the rules below it look at rows that are
already encoded, so that training can use some of them by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from plume.checks.fertility import finely_cut
from plume.data.spool import Chosen
from plume.errors import UserError
from plume.text.encoded import EncodedRows, Numbers, Stretch
from plume.text.template import encode_example
from plume.types import Encoded, Example, Finding, Message, Severity, Template, Tokenizer

_NAMED = 5  # other rows that a finding names
_WASTE = 0.5
_GROUPED_BATCHES = 50  # rows of similar length go together within so many batches, as in training


def token_findings(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    template: Template,
    *,
    max_length: int | None,
    max_new_tokens: int,
    batch_size: int,
    sampling: Mapping[str, Any],
) -> Iterator[Finding]:
    """Every D3 finding about rows that this tokenizer and template would be trained on.

    `max_length` None means no limit; `sampling` holds generation settings under Hugging Face's names, such as
    those of the model's generation_config.json.
    """
    kept, encoded, refused = _encode(examples, tokenizer, template)
    yield from refused
    if not kept:
        return
    ends = end_ids(tokenizer, template)
    if max_length:
        yield from too_long(kept, encoded, max_length)
    yield from untrained(kept, encoded)
    yield from endless(kept, encoded, ends)
    yield from seams(kept, tokenizer, template)
    unk_id = tokenizer.special_tokens.get(tokenizer.special_token_names.get("unk_token", ""))
    if unk_id not in ends:  # GPT-2's tokenizer calls its end token unknown, and knows every byte
        yield from unknown(kept, encoded, unk_id)
    yield from finely_cut(kept, tokenizer)
    yield from forged(kept, tokenizer)
    yield from cut_answers(kept, encoded, max_new_tokens, sampling.get("max_length"))
    yield from unreachable(kept, encoded, tokenizer, int(sampling.get("no_repeat_ngram_size") or 0))
    yield from doubled_start(kept, encoded, tokenizer)
    yield from other_end(kept, encoded, tokenizer, sampling.get("eos_token_id"))
    yield from padded(kept, encoded, batch_size, max_length)


def end_ids(tokenizer: Tokenizer, template: Template) -> frozenset[int]:
    """The tokens that may end a reply: what the template writes there, and the tokenizer's own end token."""
    specials = tokenizer.special_tokens
    texts = (*template.stop, tokenizer.special_token_names.get("eos_token", ""))
    return frozenset(specials[text] for text in texts if text in specials)


def unknown(
    examples: Sequence[Example], encoded: EncodedRows, unk_id: int | None, *, from_scratch: bool = False
) -> Iterator[Finding]:
    """D305: text that the tokenizer cannot represent; said at the first row, with the number of rows."""
    remedy = "use --set tokenizer=bpe, or a larger vocab_size"
    if not from_scratch:
        remedy = "take a base whose tokenizer knows them, or train from scratch with --model gpt"
    found = [] if unk_id is None else _rows_where(encoded, lambda part: part.ids == unk_id)
    if found:
        yield Finding(
            "D305",
            "warning",
            examples[found[0]].source,
            f"{len(found)} of {len(examples)} rows hold characters or words that the tokenizer does not know",
            "they are read and answered as <unk>: " + remedy,
            tuple(examples[row].source for row in found[1:6]),
        )


def too_long(examples: Sequence[Example], encoded: EncodedRows, max_length: int) -> Iterator[Finding]:
    """D301: a conversation that the context cannot hold. Plain text is read in windows and never too long."""
    for row in np.flatnonzero(encoded.lengths > max_length).tolist():
        if not examples[row].is_text:
            yield Finding(
                "D301",
                "error",
                examples[row].source,
                f"the row has {encoded.lengths[row]} tokens; max_length is {max_length}, so its answer would be cut",
                "raise max_length (a pretrained model's own context is the limit), or shorten or split the row",
            )


def untrained(examples: Sequence[Example], encoded: EncodedRows) -> Iterator[Finding]:
    """D302: rows that teach nothing. The first token of a row is never predicted, so it does not count."""
    rows = Chosen(examples, np.flatnonzero(encoded.taught == 0))
    message = "no token of the row is in the loss: nothing is learnt from it"
    hint = "write an answer, or correct the template's {% generation %} marks"
    yield from _once("D302", "error", rows, len(examples), message, hint)


def endless(examples: Sequence[Example], encoded: EncodedRows, ends: Collection[int]) -> Iterator[Finding]:
    """D303: replies after which no end token is learnt. A stretch of a longer text has none, and needs none."""
    absent: list[int] = []
    masked: list[int] = []
    for part in encoded.stretches():
        known = np.isin(part.ids, list(ends))
        rows, ended_after = _without_end(part, known)
        for row, ended in zip(rows.tolist(), ended_after.tolist(), strict=True):
            if not examples[row].cut:
                (masked if ended else absent).append(row)
    hint = "let {% generation %} reach to and include {{ eos_token }}, and give padding a token of its own"
    message = "the end token after the answer is not in the loss: the model would never learn to stop"
    yield from _once("D303", "error", Chosen(examples, masked), len(examples), message, hint)
    message = "no end token follows the answer: the model would never learn to stop"
    hint = "write {{ eos_token }} after each answer"
    yield from _once("D303", "error", Chosen(examples, absent), len(examples), message, hint)


def _without_end(part: Stretch, known: npt.NDArray[np.bool_]) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """The rows with a reply that ends on no end token, and whether one follows the first such reply of each."""
    opens = np.zeros(len(part.ids) + 1, dtype=np.bool_)
    opens[part.starts] = True
    opens[-1] = True
    following = np.append(part.trained[1:], False) & ~opens[1:]
    bad = np.flatnonzero(part.trained & ~following & ~known)
    rows, first = np.unique(part.rows(bad), return_index=True)
    after = bad[first] + 1
    return rows, np.append(known, False)[after] & ~opens[after]


def _rows_where(encoded: EncodedRows, wanted: Callable[[Stretch], npt.NDArray[np.bool_]]) -> list[int]:
    """The rows with a token that is wanted, in order."""
    parts = encoded.stretches()
    return [row for part in parts for row in np.unique(part.rows(np.flatnonzero(wanted(part)))).tolist()]


def seams(examples: Sequence[Example], tokenizer: Tokenizer, template: Template) -> Iterator[Finding]:
    """D304: where pieces encoded apart, as Plume does, are other ids than the text encoded at once, as others do.

    An error where the question itself would be other ids, a warning where only an answer's first token merges
    with the question's last: a tool that encodes both together then trains what it never asks.
    """
    asked: list[Example] = []
    merged: list[Example] = []
    forged_text = _special_text(tokenizer)
    for example in examples:
        if example.is_text or (forged_text and any(forged_text.search(each.content) for each in example.messages)):
            continue
        turn = list(example.turns())[-1]
        apart, at_once = _both_ways(turn.history, tokenizer, template, reply=True)
        if apart != at_once:
            asked.append(example)
            continue
        _, whole = _both_ways((*turn.history, turn.reply), tokenizer, template, reply=False)
        if whole[: len(apart)] != apart:
            merged.append(example)
    message = "the question is other tokens when its text is encoded at once, as other engines do, than in training"
    hint = "put a special token of the tokenizer between turns in chat_template.jinja"
    yield from _once("D304", "error", asked, len(examples), message, hint)
    message = "the answer's first token merges with the question's last when both are encoded together"
    hint = "end the question on a special token or a line break; Plume encodes both apart, other tools may not"
    yield from _once("D304", "warning", merged, len(examples), message, hint)


def forged(examples: Sequence[Example], tokenizer: Tokenizer) -> Iterator[Finding]:
    """D306: a special token's text written in a message. Plume's templates break it; others would read a turn."""
    pattern = _special_text(tokenizer)
    rows: list[tuple[Example, str]] = []
    for example in examples:
        found = next((hit for each in example.messages if pattern and (hit := pattern.search(each.content))), None)
        if found:
            rows.append((example, found.group()))
    hint = "remove or rewrite it: a template adds the special tokens itself"
    if len(rows) > max(10, len(examples) // 2):
        message = f"the text holds the special token {rows[0][1]}, as if a template had already been applied"
        yield from _once("D306", "error", [row for row, _ in rows], len(examples), message, hint, quote=rows[0][1])
        return
    for example, token in rows:
        message = f"the text holds the special token {token}: other tools would read it as one"
        yield Finding("D306", "error", example.source, message, hint, quote=token)


def cut_answers(
    examples: Sequence[Example], encoded: Sequence[Encoded], max_new_tokens: int, max_length: int | None = None
) -> Iterator[Finding]:
    """D307: answers that generation would cut. `max_length` is generation's own, which counts the prompt too."""
    asked = [(example, row) for example, row in zip(examples, encoded, strict=True) if not example.is_text]
    lengths = [max((after - start for start, after in replies(row)), default=0) for _, row in asked]
    long = [example for (example, _), length in zip(asked, lengths, strict=True) if length > max_new_tokens]
    message = f"the answer is longer than max_new_tokens={max_new_tokens} and would be cut"
    hint = f"--set max_new_tokens={max(lengths, default=0)} holds the longest answer and its end token"
    yield from _once("D307", "warning", long, len(examples), message, hint)
    if max_length:
        long = [example for example, row in asked if len(row.ids) > max_length]
        message = f"question and answer together are longer than generation's max_length={max_length}"
        hint = f"set max_new_tokens={max(lengths, default=0)} instead, which counts the answer alone"
        yield from _once("D307", "warning", long, len(examples), message, hint)


def unreachable(
    examples: Sequence[Example], encoded: Sequence[Encoded], tokenizer: Tokenizer, size: int
) -> Iterator[Finding]:
    """D308: answers that `no_repeat_ngram_size` forbids: a run of `size` tokens stands earlier in prompt or answer."""
    rows: list[Example] = []
    quote = ""
    for example, row in zip(examples, encoded, strict=True):
        at = None if example.is_text or size < 1 else _first_barred(row, size)
        if at is not None:
            rows.append(example)
            quote = quote or tokenizer.decode(row.ids[at - size + 1 : at + 1])
    repeated = f" ({quote!r} comes twice)" if quote else ""
    message = f"no_repeat_ngram_size={size} makes the answer impossible{repeated}; the question's tokens count too"
    hint = "set no_repeat_ngram_size=0: JSON and facts repeat tokens rightly"
    yield from _once("D308", "error", rows, len(examples), message, hint, quote=quote)


def doubled_start(examples: Sequence[Example], encoded: Sequence[Encoded], tokenizer: Tokenizer) -> Iterator[Finding]:
    """D309: two tokens that begin a text, one from the template and one more."""
    bos = tokenizer.special_tokens.get(tokenizer.special_token_names.get("bos_token", ""))
    rows = [
        example for example, row in zip(examples, encoded, strict=True) if bos is not None and row.ids[:2] == (bos, bos)
    ]
    hint = "write {{ bos_token }} once in chat_template.jinja"
    yield from _once("D309", "error", rows, len(examples), "the row begins with two begin tokens", hint)


def other_end(
    examples: Sequence[Example], encoded: Sequence[Encoded], tokenizer: Tokenizer, eos_token_id: int | list[int] | None
) -> Iterator[Finding]:
    """D310: generation waits for an end token that no row teaches."""
    taught = {row.ids[after - 1] for row in encoded for _, after in replies(row)}
    named = tokenizer.special_tokens.get(tokenizer.special_token_names.get("eos_token", ""))
    awaited = set(eos_token_id if isinstance(eos_token_id, list) else [named if eos_token_id is None else eos_token_id])
    whole = [example for example in examples if not example.cut]
    if not whole or not taught or awaited == {None} or awaited & taught:
        return
    names = {id: text for text, id in tokenizer.special_tokens.items()}
    wanted = ", ".join(names.get(id, str(id)) for id in sorted(id for id in awaited if id is not None))
    ended = ", ".join(names.get(id, str(id)) for id in sorted(taught))
    message = f"generation stops at {wanted}, which ends no row; the rows end with {ended}"
    hint = "Plume stops at both; for other engines set eos_token_id in generation_config.json to the latter"
    yield Finding("D310", "warning", whole[0].source, message, hint)


def padded(
    examples: Sequence[Example], encoded: Sequence[Encoded], batch_size: int, max_length: int | None
) -> Iterator[Finding]:
    """D311: batches that are mostly padding although rows of similar length go together."""
    waste = padding_waste([len(row.ids) - 1 for row in encoded], batch_size, max_length)
    if waste > _WASTE:
        longest = max(zip(examples, encoded, strict=True), key=lambda pair: len(pair[1].ids))
        message = f"{waste:.0%} of what is computed in batches of {batch_size} is padding, most of it for this row"
        hint = "take a smaller per_device_train_batch_size, or split the longest rows"
        yield Finding("D311", "warning", longest[0].source, message, hint)


def padding_waste(lengths: Sequence[int], batch_size: int, max_length: int | None = None) -> float:
    """Share of the processed tokens that are padding, rows of similar length being batched together."""
    pieces = [
        min(length - start, max_length or length)
        for length in lengths
        for start in range(0, max(1, length), max_length or max(1, length))
    ]
    size = batch_size * _GROUPED_BATCHES
    processed = 0
    for start in range(0, len(pieces), size):
        group = sorted(pieces[start : start + size])
        batches = [group[at : at + batch_size] for at in range(0, len(group), batch_size)]
        processed += sum(batch[-1] * len(batch) for batch in batches)
    return 1 - sum(pieces) / processed if processed else 0.0


def replies(row: Encoded) -> Iterator[tuple[int, int]]:
    """Start and end of every trained stretch."""
    start = None
    for position, learnt in enumerate((*row.trained, False)):
        if learnt and start is None:
            start = position
        elif not learnt and start is not None:
            yield start, position
            start = None


def _encode(
    examples: Sequence[Example], tokenizer: Tokenizer, template: Template
) -> tuple[list[Example], EncodedRows, list[Finding]]:
    """The rows that the template accepts, encoded, and D309 about the others."""
    kept: list[Example] = []
    encoded: list[Encoded] = []
    refused: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        try:
            encoded.append(encode_example(example, template, tokenizer))
            kept.append(example)
        except UserError as error:
            refused.setdefault((error.message.removeprefix("D309: "), error.hint or ""), []).append(example)
    findings = [
        finding
        for (message, hint), rows in refused.items()
        for finding in _once("D309", "error", rows, len(examples), message, hint)
    ]
    return kept, EncodedRows.of(encoded, vocab_size=tokenizer.vocab_size), findings


def _once(
    code: str, severity: Severity, rows: Sequence[Example], total: int, message: str, hint: str, *, quote: str = ""
) -> Iterator[Finding]:
    """One finding for all rows concerned: at the first, with the count, the next few named."""
    if not rows:
        return
    said = message if total == 1 else f"{message} ({len(rows)} of {total} rows, {len(rows) / total:.0%})"
    yield Finding(code, severity, rows[0].source, said, hint, tuple(row.source for row in rows[1 : 1 + _NAMED]), quote)


class _Heard:
    """Stands in for a tokenizer to hear the pieces of text that a template gives it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.pieces: list[str] = []

    def encode(self, text: str, *, add_special_tokens: bool = False, specials: bool = False) -> list[int]:
        self.pieces.append(text)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens, specials=specials)


def _both_ways(
    messages: Sequence[Message], tokenizer: Tokenizer, template: Template, *, reply: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    heard = _Heard(tokenizer)
    apart = template.encode(messages, cast(Tokenizer, heard), reply=reply).ids
    return apart, tuple(tokenizer.encode("".join(heard.pieces), specials=True))


def _special_text(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    texts = sorted(filter(None, tokenizer.special_tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts))) if texts else None


def _first_barred(row: Encoded, size: int) -> int | None:
    """Position of the first answer token that would complete a run of `size` tokens that already stands before it."""
    seen: set[tuple[int, ...]] = set()
    for at in range(size - 1, len(row.ids)):
        run = row.ids[at - size + 1 : at + 1]
        if row.trained[at] and run in seen:
            return at
        seen.add(run)
    return None
