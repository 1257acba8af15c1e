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
    "D302": Entry(
        "no trained token in a row",
        "error",
        "nothing is learnt from it; elsewhere its loss is 0 or not a number, and reported as success",
        "write an answer, or correct the template's marks",
    ),
    "D303": Entry(
        "end token absent or masked",
        "error",
        "every answer was learnt, and none ever ended: no answer stopped, none was right",
        "train the end token, and give padding a token of its own",
    ),
    "D304": Entry(
        "tokens merge across the seam of prompt and answer",
        "error or warning",
        "what is asked is not what was trained; a warning where only tools that encode both together are concerned",
        "put a special token or a line break between prompt and answer in the template",
    ),
    "D305": Entry(
        "unknown to the tokenizer, or cut too finely",
        "warning",
        "what is unknown can neither be read nor answered; what is cut into bytes makes rows long and slow to learn",
        "use a tokenizer made for the language, one that knows every byte, or a larger vocabulary",
    ),
    "D306": Entry(
        "special token written in the text",
        "error",
        "other tools read it as the token itself: a row can then end a turn or begin one",
        "remove or rewrite it; the template adds special tokens",
    ),
    "D307": Entry(
        "answer longer than generation allows",
        "warning",
        "max_length=50, which counts the prompt, took exact answers from 100 to 78 %, max_length=30 to 44 %",
        "set max_new_tokens from the longest answer",
    ),
    "D308": Entry(
        "no_repeat_ngram_size forbids the answer",
        "error",
        "size 2 took exact answers from 100 to 44 %, size 3 to 78 %; the question's own tokens count",
        "set no_repeat_ngram_size=0",
    ),
    "D309": Entry(
        "template unfit for training",
        "error, warning or info",
        "replies cannot be told from prompts, or never end; info when only other tools are concerned",
        "mark the assistant's text with {% generation %} in chat_template.jinja",
    ),
    "D310": Entry(
        "added tokens without effect",
        "warning",
        "a token that no row contains keeps random weights, and one without merges is never used",
        "add only tokens that the rows contain, and stop at the token that ends them",
    ),
    "D311": Entry(
        "mostly padding",
        "warning",
        "rows padded to 512 took one step from 0.036 to 0.735 seconds, for the same loss",
        "take a smaller batch, or split the longest rows",
    ),
}
