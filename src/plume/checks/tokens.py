"""D3: what the tokenizer and the template make of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from plume.types import Encoded, Example, Finding


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
