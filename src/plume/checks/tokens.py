"""D3: what the tokenizer and the template make of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from plume.types import Encoded, Example, Finding


def unknown(examples: Sequence[Example], encoded: Sequence[Encoded], unk_id: int | None) -> Iterator[Finding]:
    """D305: text that the tokenizer cannot represent; said at the first row, with the number of rows."""
    rows = [example for example, row in zip(examples, encoded, strict=True) if unk_id is not None and unk_id in row.ids]
    if rows:
        yield Finding(
            "D305",
            "warning",
            rows[0].source,
            f"{len(rows)} of {len(examples)} rows hold characters or words that the tokenizer does not know",
            "they are read and answered as <unk>; use --set tokenizer=bpe, or a larger vocab_size",
            tuple(row.source for row in rows[1:6]),
        )


def too_long(examples: Sequence[Example], encoded: Sequence[Encoded], max_length: int) -> Iterator[Finding]:
    """D301: a conversation that the context cannot hold. Plain text is read in windows and never too long."""
    for example, row in zip(examples, encoded, strict=True):
        if len(row.ids) > max_length and not example.is_text:
            yield Finding(
                "D301",
                "error",
                example.source,
                f"the row has {len(row.ids)} tokens; max_length is {max_length}, so its answer would be cut",
                "raise max_length (a pretrained model's own context is the limit), or shorten or split the row",
            )
