"""Decisions by OpenAI's own client: probabilities of labels, and the temperature that makes them honest."""

import asyncio
import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Decision
from typer.testing import CliRunner

from plume.cli.main import app
from plume.generation.decide import fit_temperature, log_loss, probabilities
from plume.generation.scoring import score
from plume.models.bundle import save
from plume.types import Encoded, Message
from serving import CONTEXT, Running, running, untrained

SAID = "La mer monte, et la tempête arrive ! 🦉"
MOODS = ["calme", "inquiet", "in"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("decisions"), {"any": untrained()}) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with served.client() as made:
        yield made


def by_hand(asked: list[Message], labels: list[str]) -> list[float]:
    """Log-likelihoods of replies, each read alone, over all that stands behind the prompt."""
    made, found = untrained(), []
    for label in labels:
        prompt = len(made.template.encode(asked, made.tokenizer, reply=True).ids)
        ids = made.template.encode([*asked, Message("assistant", label)], made.tokenizer).ids
        (one,) = score(made, [Encoded(ids, (False,) * prompt + (True,) * (len(ids) - prompt))])
        found.append(-one.loss)
    return found


def choice(**more: Any) -> Any:
    return {"type": "choice", "instructions": "", "choices": [{"value": mood} for mood in MOODS], **more}


def post(served: Running, **body: Any) -> httpx.Response:
    asked = {"model": "any", "input": SAID, "questions": [choice()], **body}
    return httpx.post(f"{served.url}/v1/decisions", json=asked, timeout=30)


def test_a_choice_is_as_likely_as_the_model_would_say_it(client: openai.OpenAI) -> None:
    (answer,) = client.decisions.create(model="any", input=SAID, questions=[choice(name="mood")]).answers
    assert answer.type == "choice"
    expected = probabilities(by_hand([Message("user", SAID)], MOODS))
    assert [one.probability for one in answer.probabilities] == pytest.approx(expected, abs=1e-5)
    assert sum(one.probability for one in answer.probabilities) == pytest.approx(1)
    assert answer.confidence == max(one.probability for one in answer.probabilities)
    assert answer.choice == MOODS[expected.index(max(expected))]
    assert answer.name == "mood"


def test_questions_and_descriptions_stand_behind_what_was_said(client: openai.OpenAI) -> None:
    described: Any = [{"value": True, "description": "la tempête"}, {"value": False}]
    questions: Any = [
        {"type": "predicate", "instructions": "Est-ce loin ?"},
        {"type": "choice", "instructions": "Est-ce grave ?", "choices": described},
        {
            "type": "score",
            "instructions": "Combien ?",
            "levels": [{"label": "peu"}, {"label": "assez"}, {"label": "trop"}],
        },
    ]
    predicate, boolean, scale = client.decisions.create(model="any", input=SAID, questions=questions).answers
    assert predicate.type == "predicate"
    asked = [Message("user", f"{SAID}\n\nEst-ce loin ?")]
    assert predicate.probability == pytest.approx(probabilities(by_hand(asked, ["true", "false"]))[0], abs=1e-5)
    assert boolean.type == "choice"
    asked = [Message("user", f"{SAID}\n\nEst-ce grave ?\ntrue: la tempête")]
    expected = probabilities(by_hand(asked, ["true", "false"]))
    assert [one.probability for one in boolean.probabilities] == pytest.approx(expected, abs=1e-5)
    assert [one.value for one in boolean.probabilities] == [True, False]
    assert scale.type == "score"
    expected = probabilities(by_hand([Message("user", f"{SAID}\n\nCombien ?")], ["peu", "assez", "trop"]))
    assert scale.score == pytest.approx(expected[1] + 2 * expected[2], abs=1e-5)
    assert [(one.value, one.label) for one in scale.probabilities] == [(0, "peu"), (1, "assez"), (2, "trop")]


def test_a_conversation_is_asked_about_as_a_whole(client: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": SAID}, {"role": "assistant", "content": "Oui."}]
    (answer,) = client.decisions.create(
        model="any", input=said, questions=[{"type": "predicate", "instructions": "Vrai ?"}]
    ).answers
    asked = [Message("user", SAID), Message("assistant", "Oui."), Message("user", "Vrai ?")]
    assert answer.type == "predicate"
    assert answer.probability == pytest.approx(probabilities(by_hand(asked, ["true", "false"]))[0], abs=1e-5)


def test_the_answer_is_what_the_client_expects_to_the_letter(served: Running) -> None:
    levels = [{"label": "peu"}, {"label": "trop"}]
    questions = [
        choice(),
        {"type": "predicate", "instructions": "Vrai ?"},
        {"type": "score", "instructions": [{"type": "input_text", "text": "Combien ?"}], "levels": levels},
    ]
    made = Decision.model_validate_json(post(served, questions=questions).text, strict=True)
    assert [answer.type for answer in made.answers] == ["choice", "predicate", "score"]
    assert made.usage.input_tokens == made.usage.total_tokens > 0


def test_the_asynchronous_client(served: Running, client: openai.OpenAI) -> None:
    async def ask() -> Decision:
        async with served.asynchronous() as many:
            return await many.decisions.create(model="any", input=SAID, questions=[choice()])

    assert asyncio.run(ask()) == client.decisions.create(model="any", input=SAID, questions=[choice()])


# --- calibration ---


def test_the_temperature_of_answers_that_are_surer_than_right_is_found() -> None:
    chance, rows = random.Random(3), []
    for _ in range(4000):
        true = [chance.gauss(0, 1) for _ in range(3)]
        right = chance.choices(range(3), probabilities(true))[0]
        rows.append(([4 * one for one in true], right))  # as if the model were four times as sure
    temperature = fit_temperature(rows)
    assert temperature == pytest.approx(4, rel=0.15)
    assert log_loss(rows, temperature) < log_loss(rows, 1)
    for other in (0.9, 1.1):
        assert log_loss(rows, temperature) <= log_loss(rows, temperature * other)
    assert log_loss(rows, temperature) == pytest.approx(
        -sum(math.log(probabilities(logprobs, temperature)[right]) for logprobs, right in rows) / len(rows)
    )


def test_a_calibration_is_learnt_kept_and_used(tmp_path: Path) -> None:
    model, data = tmp_path / "data" / "models" / "mood", tmp_path / "validation.jsonl"
    model.mkdir(parents=True)
    save(untrained(), model, "")
    rows = [{"prompt": f"{SAID} {number}", "completion": MOODS[number % 2]} for number in range(24)]
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    done = CliRunner().invoke(app, ["calibrate", str(model), str(data), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["examples"], found["labels"]) == (24, ["calme", "inquiet"])
    assert found["log_loss_after"] <= found["log_loss_before"]
    with running(tmp_path, {}) as server, server.client() as client:
        (answer,) = client.decisions.create(model="mood", input=SAID, questions=[choice()]).answers
        assert answer.type == "choice"
        expected = probabilities(by_hand([Message("user", SAID)], MOODS), found["temperature"])
        assert [one.probability for one in answer.probabilities] == pytest.approx(expected, abs=1e-4)
        (model / "decisions.json").write_text("{}", encoding="utf-8")
        with pytest.raises(openai.InternalServerError, match="the calibration of mood cannot be read"):
            client.decisions.create(model="mood", input=SAID, questions=[choice()])


def test_what_holds_no_labels_cannot_calibrate(tmp_path: Path) -> None:
    data = tmp_path / "same.jsonl"
    data.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["calibrate", str(tmp_path), str(data)])
    assert done.exit_code == 2
    assert "1 different answers" in re.sub(r"\s+", " ", done.output)


# --- refusals ---


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"surprise": 1}, "surprise", "unsupported_parameter"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options", "unsupported_parameter"),
        ({"questions": []}, "questions", "invalid_value"),
        ({"questions": [{"type": "ranking", "instructions": "x"}]}, "questions[0]", "invalid_value"),
        ({"questions": [choice(choices=[{"value": "a"}])]}, "questions[0].choices", "invalid_value"),
        ({"questions": [choice(choices=[{"value": "a"}, {"value": "a"}])]}, "questions[0]", "invalid_value"),
        ({"questions": [choice(choices=[{"value": True}, {"value": "true"}])]}, "questions[0]", "invalid_value"),
        ({"questions": [choice(choices=[{"value": 1}, {"value": 2}])]}, "questions[0].choices[0].value", None),
        ({"questions": [choice(choices=[{"value": f"{n}"} for n in range(250)])] * 17}, "questions", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type", None),
        ({"input": "a " * CONTEXT}, "input", None),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(
    served: Running, body: dict[str, Any], param: str, code: str | None
) -> None:
    answer = post(served, **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert code is None or answer.json()["error"]["code"] == code


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.decisions.create(model="nothing", input=SAID, questions=[choice()])
