"""What the scores mean, on cases worked out by hand."""

import json
import math
from pathlib import Path

import pytest

from plume.errors import UserError
from plume.evaluation.metrics import asks_for_json, exact_match, is_json, summarise, token_f1
from plume.evaluation.results import result, worst_first
from plume.evaluation.run import compile_schema, read_schema, schema_valid
from plume.types import Score, Scored, Source


def scored(reference: str, answer: str, *, stopped: bool = True, loss: float = 2.0, line: int = 1) -> Scored:
    return Scored(
        Source("qa.jsonl", line),
        1,
        "question",
        reference,
        answer,
        stopped and exact_match(answer, reference),
        token_f1(answer, reference),
        is_json(answer) if asks_for_json(reference) else None,
        None,
        stopped,
        Score(loss, 4, loss / 2, 10),
    )


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("Au large.", "Au large.", True),
        (" Au large.\n", "Au large.", True),
        ("cafe\u0301", "café", True),
        ("au large.", "Au large.", False),
        ("Au large", "Au large.", False),
    ],
)
def test_exact_match_is_exact_up_to_normal_form_and_outer_space(answer: str, reference: str, same: bool) -> None:
    assert exact_match(answer, reference) is same


def test_token_f1_counts_shared_words() -> None:
    assert token_f1("the red boat", "The boat") == pytest.approx(2 * 2 / 5)
    assert token_f1("boat boat", "boat") == pytest.approx(2 / 3)
    assert token_f1("", "boat") == 0.0
    assert token_f1("l’été", "L’été") == 1.0


@pytest.mark.parametrize("text", ['{"a": 1} and more', "{'a': 1}", '{"a": NaN}', '{"a": 1', ""])
def test_what_is_not_json_is_not_valid(text: str) -> None:
    assert not is_json(text)


def test_json_is_counted_over_rows_that_ask_for_it() -> None:
    rows = [scored('{"a": 1}', '{"a": 2}'), scored('{"a": 1}', "{"), scored("text", "{"), scored("42", "42")]
    assert summarise(rows)["json_valid"] == 0.5
    assert summarise(rows[2:])["json_valid"] is None
    assert summarise(rows)["schema_valid"] is None


def test_rates_perplexity_and_bits_per_byte() -> None:
    scores = summarise([scored("yes", "yes"), scored("no", "yes", stopped=False, loss=6.0)])
    assert scores["exact_match"] == 0.5
    assert scores["stop_rate"] == 0.5
    assert scores["perplexity"] == pytest.approx(math.exp(8 / 8))
    assert scores["bits_per_byte"] == pytest.approx(4 / 20 / math.log(2))


def test_an_answer_that_runs_on_is_no_exact_match() -> None:
    assert scored("yes", "yes", stopped=False).exact_match is False


def test_worst_rows_come_first() -> None:
    rows = [scored("a b", "a b", line=1), scored("a b", "c", line=2), scored("a b", "a c", line=3)]
    assert [row.source.line for row in worst_first(rows)] == [2, 3, 1]


def test_the_result_is_json_with_its_baseline() -> None:
    value = json.loads(json.dumps(result("runs/x", "qa.jsonl", [scored("a", "a")], [scored("a", "b")], "untrained")))
    assert set(value) == {"model", "data", "scores", "baseline", "rows"}
    assert (value["scores"]["exact_match"], value["baseline"]["scores"]["exact_match"]) == (1.0, 0.0)
    assert result("m", "d", [scored("a", "a")], None)["baseline"] is None


def test_schemas_are_checked_by_a_validator(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object", "required": ["name"]}', encoding="utf-8")
    validator = compile_schema(read_schema(str(file)))
    assert schema_valid(validator, '{"name": "Maëlle"}')
    assert not schema_valid(validator, "{}")
    assert not schema_valid(validator, "Maëlle")


@pytest.mark.parametrize("content", ["{", '{"type": "no such type"}', '{"minimum": "high"}'])
def test_what_is_no_schema_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="not a JSON Schema"):
        read_schema(str(file))
