"""D3: what tokenizer and template make of the rows."""

from __future__ import annotations

from plume.checks.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    "D301": Entry(
        "example longer than max_length",
        "error",
        "its answer would be cut and its end never learnt",
        "raise max_length, or shorten or split the row",
    ),
    "D305": Entry(
        "unknown to the tokenizer",
        "warning",
        "what is unknown can neither be read nor answered",
        "use a tokenizer that knows every byte, or a larger vocabulary",
    ),
    "D309": Entry(
        "template unfit for training",
        "error",
        "replies cannot be told from prompts, or never end",
        "mark the assistant's text with {% generation %} in chat_template.jinja",
    ),
}
