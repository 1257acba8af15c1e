"""`plume ask`: one question, its answer, nothing else."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from plume.cli import options, output
from plume.errors import PlumeError
from plume.recipe import parse_settings
from plume.types import Message, Sampling

EXAMPLES = (
    "Examples: plume ask runs/qa 'Who keeps the lighthouse?' · "
    "plume ask runs/qa 'Who?' --set temperature=0.7 --set seed=1"
)


def ask(
    model: options.Model,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    schema: Annotated[
        str | None, typer.Option(metavar="FILE", help="A JSON Schema that the answer must satisfy.")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system turn before the question.")] = None,
    settings: options.Settings = [],  # noqa: B006 - typer reads the default, nobody writes it
    quantization: options.Quantization = None,
    json: options.Json = False,
) -> None:
    """Ask a model one question and print its answer, in the template it was trained with.

    Greedy unless a temperature is set. With --schema an answer that does not satisfy it is an error, exit code 1.
    """
    from plume.evaluation.run import compile_schema, read_schema, schema_valid
    from plume.generation.engine import Engine
    from plume.generation.sample import make_sampling
    from plume.models.bundle import load

    chosen = parse_settings(settings)
    make_sampling(chosen, Sampling())
    validator = compile_schema(read_schema(schema)) if schema else None
    bundle = load(model, quantization)
    if not bundle.own_template:
        output.note("note: the model brings no chat template; the question is given as raw text")
    sampling = make_sampling(chosen, Sampling(max_new_tokens=bundle.max_new_tokens))
    engine = Engine(bundle)
    turns = [*([Message("system", system)] if system else []), Message("user", question)]
    began = time.monotonic()
    pieces, count, finish = [], 0, None
    for chunk in engine.stream(engine.prompt(turns), sampling):
        pieces.append(chunk.text)
        count += len(chunk.ids)
        finish = chunk.finish
        if not json:
            output.write(chunk.text, end="")
    answer = "".join(pieces)
    if json:
        seconds = round(time.monotonic() - began, 4)
        output.write_json({"answer": answer, "finish": finish, "tokens": count, "seconds": seconds})
    else:
        output.write("")
    if finish == "length":
        output.note(f"note: the answer was cut at {count} tokens (--set max_new_tokens=N)")
    if validator and not schema_valid(validator, answer):
        raise PlumeError(
            f"the answer does not satisfy {schema}",
            "train on answers of that shape, or try another: --set temperature=0.7 --set seed=1",
        )
