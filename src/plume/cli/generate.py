"""`plume generate`: continue a text, without any template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plume.cli import answers, options, output
from plume.errors import UserError
from plume.recipe import parse_settings
from plume.types import Chunk, Sampling

if TYPE_CHECKING:
    from plume.models.bundle import Bundle

EXAMPLES = (
    "Examples: plume generate runs/book --prompt 'Once upon a time' · "
    "plume generate runs/book --prompt 'A' --set temperature=0.8 --set top_p=0.9 --set seed=3 · "
    "plume generate runs/book --prompt 'A' --set num_beams=4 --set n=2 · "
    "plume generate runs/book --prompt 'A' --set temperature=0.8 --set n=3 --json · "
    "plume generate runs/book --prompt 'A' --set repetition_penalty=1.1 --set max_new_tokens=5 --explain"
)


def generate(
    model: options.Model,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The text to continue.")],
    settings: options.Settings = [],  # noqa: B006 - typer reads the default, nobody writes it
    quantization: options.Quantization = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="For each token: the candidates, what every setting removed, and why.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Continue a text and print the continuation alone; several (n) with an empty line between them.

    The prompt is encoded as the tokenizer does by default (with BOS where it has one). Greedy unless a
    temperature is set.
    """
    from plume.generation.engine import check_text
    from plume.generation.settings import check_for, make_sampling
    from plume.models.bundle import for_answering, load

    check_text(prompt)
    chosen = parse_settings(settings)
    make_sampling(chosen, Sampling())
    bundle = for_answering(load(model, quantization))
    ids = tuple(bundle.tokenizer.encode(prompt, add_special_tokens=True))
    if not ids:
        raise UserError("the prompt is empty: there is nothing to continue", "give some text: --prompt 'Once'")
    sampling = make_sampling(chosen, Sampling(max_new_tokens=bundle.max_new_tokens))
    check_for(sampling, bundle.model.vocab_size)
    answers.remarks(sampling, json=json)
    if explain:
        _explain(bundle, ids, sampling, json=json)
    else:
        _continue(bundle, ids, sampling, json=json)


def _continue(bundle: Bundle, ids: tuple[int, ...], sampling: Sampling, *, json: bool) -> None:
    from plume.generation.engine import Engine

    given = answers.show(Engine(bundle).stream(ids, sampling, reply=False), sampling, json=json)
    if json:
        output.write_json(answers.with_others([_value(chunks, sampling) for chunks in given]))


def _explain(bundle: Bundle, ids: tuple[int, ...], sampling: Sampling, *, json: bool) -> None:
    from plume.cli import steps
    from plume.generation.explain import explain
    from plume.generation.reply import Request

    read = steps.Reader(bundle.tokenizer)
    chunks, values = [], []
    for number, step in enumerate(explain(bundle, Request(ids, sampling, reply=False)), 1):
        chunks.append(step.chunk)
        if json:
            values.append(steps.as_json(step, sampling, read))
        else:
            steps.show_step(number, step, sampling, read, output.out)
    if json:
        output.write_json({**_value(chunks, sampling), "steps": values})
    else:
        output.write(answers.text(chunks))


def _value(chunks: list[Chunk], sampling: Sampling) -> dict[str, Any]:
    said = {"text": answers.text(chunks), "ids": answers.ids(chunks), "finish": chunks[-1].finish}
    return {**said, **answers.logprobs(chunks, sampling)}
