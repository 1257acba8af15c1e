"""Evaluation asks every question of a file and compares the answers given, not only the likelihoods."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs

from plume.data.keys import question_key
from plume.errors import UserError
from plume.evaluation import metrics
from plume.generation.engine import Engine
from plume.text.calls import tools_of
from plume.text.template import encode_example
from plume.types import Encoded, Example, Sampling, Score, Scored, Turn

_CHUNK = 64


def evaluate(
    engine: Engine,
    examples: Sequence[Example],
    *,
    schema: Any = None,
    max_new_tokens: int | None = None,
    taught: Container[str] = (),
) -> Iterator[Scored]:
    """Ask each turn with its own history, greedily, and score the reply; plain text is only scored.

    `schema` is a JSON Schema (a parsed value). Turns whose question is in `taught` are left out: training
    answers them, as the shared opening of two conversations. Raises UserError when the schema is none.
    """
    validator = compile_schema(schema) if schema is not None else None
    sampling = Sampling(max_new_tokens=max_new_tokens or engine.bundle.max_new_tokens)
    asked = [
        (example, turn, number)
        for example in examples
        for number, turn in enumerate(example.turns(), 1)
        if example.is_text or question_key(turn.history) not in taught
    ]
    for start in range(0, len(asked), _CHUNK):
        yield from _score_chunk(engine, asked[start : start + _CHUNK], sampling, validator)


def _score_chunk(
    engine: Engine, asked: Sequence[tuple[Example, Turn, int]], sampling: Sampling, validator: Any
) -> Iterator[Scored]:
    rows = [_last_reply(engine, example, turn) for example, turn, _ in asked]
    likelihoods = engine.score(rows)
    questions = [index for index, (example, _, _) in enumerate(asked) if not example.is_text]
    prompts = [_prompt(engine, asked[index][0], asked[index][1]) for index in questions]
    answers = dict(zip(questions, engine.generate(prompts, sampling), strict=True)) if questions else {}
    for index, (example, turn, number) in enumerate(asked):
        if index not in answers:
            yield _text_row(example, likelihoods[index])
            continue
        answer, reference = answers[index], _reference(engine, rows[index], turn)
        yield Scored(
            source=example.source,
            turn=number,
            prompt=turn.history[-1].content,
            reference=reference,
            answer=answer.text,
            exact_match=answer.finish == "stop" and metrics.exact_match(answer.text, reference),
            token_f1=metrics.token_f1(answer.text, reference),
            json_valid=metrics.is_json(answer.text) if metrics.asks_for_json(reference) else None,
            schema_valid=schema_valid(validator, answer.text) if validator else None,
            stopped=answer.finish == "stop",
            likelihood=likelihoods[index],
            history=turn.history,
        )


def _prompt(engine: Engine, example: Example, turn: Turn) -> tuple[int, ...]:
    try:
        return engine.prompt(turn.history, tools_of(turn.tools))
    except UserError as error:
        raise UserError(f"{example.source}: {error.message}", error.hint) from None


def _text_row(example: Example, likelihood: Score) -> Scored:
    text = example.messages[0].content
    return Scored(example.source, 1, "", text, "", None, None, None, None, None, likelihood)


def _last_reply(engine: Engine, example: Example, turn: Turn) -> Encoded:
    """The conversation up to this reply, with this reply alone in the loss."""
    bundle = engine.bundle
    if example.is_text:
        return encode_example(example, bundle.template, bundle.tokenizer)
    tools = tools_of(turn.tools)
    whole = bundle.template.encode((*turn.history, turn.reply), bundle.tokenizer, tools)
    asked = len(bundle.template.encode(turn.history, bundle.tokenizer, tools, reply=True).ids)
    return Encoded(whole.ids, tuple(flag and index >= asked for index, flag in enumerate(whole.trained)))


def _reference(engine: Engine, row: Encoded, turn: Turn) -> str:
    """What is to be answered: the reply, its calls as the template writes them."""
    if not turn.reply.tool_calls:
        return turn.reply.content
    return engine.bundle.tokenizer.decode([id for id, learnt in zip(row.ids, row.trained, strict=True) if learnt])


def read_schema(file: str) -> Any:
    """A JSON Schema file's value. Raises UserError when it is missing, not JSON or not a schema."""
    try:
        schema = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file", "name a JSON Schema file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a JSON Schema: {error}", "write a JSON Schema object") from None
    compile_schema(schema)
    return schema


def compile_schema(schema: Any) -> Any:
    try:
        return jsonschema_rs.validator_for(schema)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise UserError(f"not a JSON Schema: {str(error).splitlines()[0]}", "correct the schema") from None


def schema_valid(validator: Any, answer: str) -> bool:
    """Does the answer parse as JSON and validate?"""
    return metrics.is_json(answer) and bool(validator.is_valid(json.loads(answer)))
