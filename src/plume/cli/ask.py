"""`plume ask`: one question, its answer, nothing else."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from plume.cli import answers, options, output, shape
from plume.recipe import parse_settings
from plume.types import Chunk, Message, Sampling

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
    quantization: options.Quantization = None,
    json: options.Json = False,
) -> None:
    """Ask a model one question and print its answer, in the template it was trained with.

    Greedy unless a temperature is set. With --schema (or --any-json, --regex, --choice, --grammar) the answer has that
    shape, whatever the settings: it is closed in time where max_new_tokens would cut it.
    """
    from plume.generation.engine import Engine
    from plume.generation.settings import check_for, make_sampling
    from plume.models.bundle import for_answering, load

    chosen = parse_settings(settings)
    make_sampling(chosen, Sampling())
    make_grammar = shape.reader(shape.Shape(schema, any_json, regex, choice, grammar))
    bundle = for_answering(load(model, quantization))
    if not bundle.own_template:
        output.note("note: the model brings no chat template; the question is given as raw text")
    sampling = make_sampling(chosen, Sampling(max_new_tokens=bundle.max_new_tokens))
    check_for(sampling, bundle.model.vocab_size)
    answers.remarks(sampling, json=json)
    engine = Engine(bundle)
    turns = [*([Message("system", system)] if system else []), Message("user", question)]
    began = time.monotonic()
    grown = make_grammar(bundle) if make_grammar else None
    for note in grown.notes if grown else ():
        output.note(f"note: {note}")
    prompt = engine.prompt(turns)
    given = answers.show(engine.stream(prompt, sampling, grammar=grown), sampling, json=json)
    seconds = round(time.monotonic() - began, 4)
    if json:
        output.write_json(answers.with_others([_value(chunks, seconds, sampling) for chunks in given]))
    for chunks in given:
        if chunks[-1].finish == "length":
            output.note(_cut(len(prompt), len(answers.ids(chunks)), bundle.model.context_length))


def _cut(asked: int, answered: int, context: int) -> str:
    """What cut an answer, and what to do about it."""
    if asked + answered < context:
        return f"note: the answer was cut at {answered} tokens (--set max_new_tokens=N)"
    return (
        f"note: the answer was cut at {answered} tokens: with the {asked} of the question the model's context of "
        f"{context} is full (ask more shortly, or train with a larger max_length)"
    )


def _value(chunks: list[Chunk], seconds: float, sampling: Sampling) -> dict[str, Any]:
    count = len(answers.ids(chunks))
    said = {"answer": answers.text(chunks), "finish": chunks[-1].finish, "tokens": count, "seconds": seconds}
    return {**said, **answers.logprobs(chunks, sampling)}
