"""POST /v1/decisions: how likely a statement is, which of several labels is right, where on a scale something lies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from openai.types import Decision
from openai.types.decision import (
    Answer,
    AnswerAnswerResourceChoice,
    AnswerAnswerResourceChoiceProbability,
    AnswerAnswerResourcePredicate,
    AnswerAnswerResourceScore,
    AnswerAnswerResourceScoreProbability,
    Usage,
    UsageInputTokensDetails,
    UsageOutputTokensDetails,
)
from pydantic import Field

from plume.errors import UserError
from plume.generation.decide import MOST_LABELS, encode_labels, probabilities, read_temperature
from plume.generation.scoring import score
from plume.models.bundle import Bundle
from plume.serving.answers import unless_gone
from plume.serving.errors import ApiError, from_plume, invalid
from plume.serving.items import InputItem, TextOfItem, as_turns, named
from plume.serving.keys import Writer
from plume.serving.models import Loaded
from plume.serving.reading import read_all
from plume.serving.sampling import Body
from plume.serving.service import ServiceDep
from plume.types import Encoded, Message, Score

log = logging.getLogger("plume.serving")
router = APIRouter(tags=["decisions"])
_MOST = 4096  # answers of all questions together

Instructions = str | list[TextOfItem]


class Predicate(Body):
    type: Literal["predicate"]
    instructions: Instructions
    name: str | None = None


class ChoiceOption(Body):
    value: str | bool
    description: str | None = None

    @property
    def label(self) -> str:
        return self.value if isinstance(self.value, str) else str(self.value).lower()


class Choice(Body):
    type: Literal["choice"]
    instructions: Instructions
    choices: Annotated[list[ChoiceOption], Field(min_length=2, max_length=MOST_LABELS)]
    name: str | None = None


class Level(Body):
    label: str
    description: str | None = None


class ScoreQuestion(Body):
    type: Literal["score"]
    instructions: Instructions
    levels: Annotated[list[Level], Field(min_length=2, max_length=MOST_LABELS)]
    name: str | None = None


Question = Annotated[Predicate | Choice | ScoreQuestion, Field(discriminator="type")]


class DecisionBody(Body):
    """The parameters that are honoured."""

    model: str
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    questions: Annotated[list[Question], Field(min_length=1, max_length=400)]
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The labels of a question, and the rows that are scored for them."""

    question: Predicate | Choice | ScoreQuestion
    labels: tuple[str, ...]
    rows: tuple[Encoded, ...]


@router.post("/v1/decisions")
async def create(body: DecisionBody, request: Request, service: ServiceDep, caller: Writer) -> Decision:
    """Probabilities for each question's answers: how likely the model would say just that, over what may be said. A
    predicate is answered by `true` or `false`, a choice by its values, a score by the labels of its levels, which
    count from 0. Nothing is generated; with a calibration beside the model, its temperature is in the probabilities."""
    request.state.model = body.model
    loaded = await service.models.open(body.model, caller.tenant)
    asked = await loaded.prepare(partial(_asked, body, loaded.bundle))
    rows = [row for one in asked for row in one.rows]
    tokens = sum(len(row.ids) for row in rows)
    service.limits.tokens(caller, tokens)
    temperature = await asyncio.to_thread(_temperature, loaded)
    reading = read_all(service, loaded, rows, partial(score, loaded.bundle), lambda row: len(row.ids))
    scores = iter(await unless_gone(request, reading))
    request.state.usage = {"prompt_tokens": tokens}
    answers = [_answer(one, [next(scores) for _ in one.rows], temperature) for one in asked]
    return Decision(answers=answers, model=body.model, usage=_usage(tokens))


def _asked(body: DecisionBody, bundle: Bundle) -> list[Asked]:
    """Raises ApiError."""
    said = as_turns(one.message for one in named(body.input))
    wanted = sum(len(_labels(question)) for question in body.questions)
    if wanted > _MOST:
        raise invalid("questions", f"questions have {wanted} answers to weigh; at most {_MOST} are taken together")
    found = []
    for number, question in enumerate(body.questions):
        labels = _labels(question)
        if len(set(labels)) < len(labels):
            where = f"questions[{number}]"
            raise invalid(where, f"{where}: two of the answers would be written the same")
        messages = _question(said, _text(question))
        try:
            rows = tuple(encode_labels(bundle, messages, labels))
        except UserError as error:
            failed: ApiError = from_plume(error, "input")
            raise failed from None
        found.append(Asked(question, labels, rows))
    return found


def _labels(question: Predicate | Choice | ScoreQuestion) -> tuple[str, ...]:
    if isinstance(question, Predicate):
        return ("true", "false")
    if isinstance(question, Choice):
        return tuple(option.label for option in question.choices)
    return tuple(level.label for level in question.levels)


def _text(question: Predicate | Choice | ScoreQuestion) -> str:
    """What is asked, with the answers that are described; nothing else is put into the model's mouth or ears."""
    given = question.instructions
    text = given if isinstance(given, str) else "".join(part.text for part in given)
    described: list[tuple[str, str | None]] = []
    if isinstance(question, Choice):
        described = [(option.label, option.description) for option in question.choices]
    elif isinstance(question, ScoreQuestion):
        described = [(level.label, level.description) for level in question.levels]
    lines = [f"{label}: {description}" for label, description in described if description]
    return "\n".join([*([text] if text else []), *lines])


def _question(said: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The question stands at the end of what the user said last, or is what the user says next."""
    if not text:
        return tuple(said)
    if said[-1].role == "user":
        return (*said[:-1], Message("user", f"{said[-1].content}\n\n{text}"))
    return (*said, Message("user", text))


def _temperature(loaded: Loaded) -> float:
    try:
        return read_temperature(loaded.entry.directory)
    except UserError as error:  # the directory is at fault, not the request
        log.error("%s: %s", loaded.entry.id, error.message)
        message = f"the calibration of {loaded.entry.id} cannot be read; the server's log says why"
        raise ApiError(500, message, type="server_error", code="model_broken", retry=False) from None


def _answer(asked: Asked, scores: Sequence[Score], temperature: float) -> Answer:
    question = asked.question
    found = probabilities([-one.loss for one in scores], temperature)
    named: dict[str, Any] = {"name": question.name, "type": question.type}
    if isinstance(question, Predicate):
        return AnswerAnswerResourcePredicate(probability=found[0], **named)
    likeliest = max(range(len(found)), key=found.__getitem__)
    if isinstance(question, Choice):
        return AnswerAnswerResourceChoice(
            choice=question.choices[likeliest].value,
            confidence=found[likeliest],
            probabilities=[
                AnswerAnswerResourceChoiceProbability(value=option.value, probability=one)
                for option, one in zip(question.choices, found, strict=True)
            ],
            **named,
        )
    return AnswerAnswerResourceScore(
        score=sum(place * one for place, one in enumerate(found)),
        confidence=found[likeliest],
        probabilities=[
            AnswerAnswerResourceScoreProbability(label=label, value=place, probability=one)
            for place, (label, one) in enumerate(zip(asked.labels, found, strict=True))
        ],
        **named,
    )


def _usage(tokens: int) -> Usage:
    """Every label is read with its question, and nothing is written."""
    return Usage(
        input_tokens=tokens,
        input_tokens_details=UsageInputTokensDetails(cached_tokens=0, cache_write_tokens=0),
        output_tokens=0,
        output_tokens_details=UsageOutputTokensDetails(reasoning_tokens=0),
        total_tokens=tokens,
    )
