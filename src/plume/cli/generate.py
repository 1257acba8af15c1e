"""`plume generate`: continue a text, without any template."""

from __future__ import annotations

from typing import Annotated

import typer

from plume.cli import options, output
from plume.errors import UserError
from plume.recipe import parse_settings
from plume.types import Sampling

EXAMPLES = (
    "Examples: plume generate runs/book --prompt 'Once upon a time' · "
    "plume generate runs/book --prompt 'A' --set temperature=0.8 --set seed=3"
)


def generate(
    model: options.Model,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The text to continue.")],
    settings: options.Settings = [],  # noqa: B006 - typer reads the default, nobody writes it
    json: options.Json = False,
) -> None:
    """Continue a text and print the continuation alone.

    The prompt is encoded as the tokenizer does by default (with BOS where it has one). Greedy unless a
    temperature is set.
    """
    from plume.generation.engine import Engine, check_text
    from plume.generation.settings import make_sampling
    from plume.models.bundle import load

    check_text(prompt)
    chosen = parse_settings(settings)
    make_sampling(chosen, Sampling())
    bundle = load(model)
    ids = bundle.tokenizer.encode(prompt, add_special_tokens=True)
    if not ids:
        raise UserError("the prompt is empty: there is nothing to continue", "give some text: --prompt 'Once'")
    sampling = make_sampling(chosen, Sampling(max_new_tokens=bundle.max_new_tokens))
    pieces: list[str] = []
    new: list[int] = []
    finish = None
    for chunk in Engine(bundle).stream(ids, sampling, reply=False):
        pieces.append(chunk.text)
        new += chunk.ids
        finish = chunk.finish
        if not json:
            output.write(chunk.text, end="")
    if json:
        output.write_json({"text": "".join(pieces), "ids": new, "finish": finish})
    else:
        output.write("")
