"""`plume ask`: one question, its answer, nothing else."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from plume.cli import options, output, shape
from plume.recipe import parse_settings
from plume.types import Message, Sampling

EXAMPLES = (
    "Examples: plume ask runs/qa 'Who keeps the lighthouse?' · "
    "plume ask runs/qa 'Who?' --set temperature=0.7 --set seed=1 · "
    "plume ask runs/qa 'Where is the bell?' --schema place.json · "
    "plume ask runs/qa 'Is it open?' --choice yes --choice no"
)


def ask(
    model: options.Model,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    schema: shape.Schema = None,
    any_json: shape.AnyJson = False,
    regex: shape.Regex = None,
    choice: shape.Choice = [],  # noqa: B006 - typer reads the default, nobody writes it
    grammar: shape.GrammarFile = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system turn before the question.")] = None,
    settings: options.Settings = [],  # noqa: B006 - typer reads the default, nobody writes it
    json: options.Json = False,
) -> None:
    """Ask a model one question and print its answer, in the template it was trained with.

    Greedy unless a temperature is set. With --schema (or --any-json, --regex, --choice, --grammar) the answer has that
    shape, whatever the settings: it is closed in time where max_new_tokens would cut it.
    """
    from plume.generation.engine import Engine
    from plume.generation.settings import make_sampling
    from plume.models.bundle import load

    chosen = parse_settings(settings)
    make_sampling(chosen, Sampling())
    make_grammar = shape.reader(shape.Shape(schema, any_json, regex, choice, grammar))
    bundle = load(model)
    if not bundle.own_template:
        output.note("note: the model brings no chat template; the question is given as raw text")
    sampling = make_sampling(chosen, Sampling(max_new_tokens=bundle.max_new_tokens))
    engine = Engine(bundle)
    turns = [*([Message("system", system)] if system else []), Message("user", question)]
    began = time.monotonic()
    pieces, count, finish = [], 0, None
    for chunk in engine.stream(engine.prompt(turns), sampling, grammar=make_grammar(bundle) if make_grammar else None):
        pieces.append(chunk.text)
        count += len(chunk.ids)
        finish = chunk.finish
        if not json:
            output.write(chunk.text, end="")
    if json:
        seconds = round(time.monotonic() - began, 4)
        output.write_json({"answer": "".join(pieces), "finish": finish, "tokens": count, "seconds": seconds})
    else:
        output.write("")
    if finish == "length":
        output.note(f"note: the answer was cut at {count} tokens (--set max_new_tokens=N)")
