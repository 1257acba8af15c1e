"""How much of the labelled set is found, and that the demo's data raises no alarm."""

import json
from collections import Counter
from pathlib import Path

import pytest

import plume
from plume.redact import recognise
from redaction_scores import PARTS, scores

EXAMPLES = Path(plume.__file__).parents[2] / "examples"


@pytest.mark.parametrize("part", PARTS)
def test_structured_kinds_and_listed_names_are_found(part: str) -> None:
    counts = scores(part)
    assert counts.recall(*counts.structured) >= 0.98, dict(counts.missed)
    assert counts.precision(*counts.structured) >= 0.98, dict(counts.wrong)
    if counts.right["name"]:
        assert counts.f1("name") >= 0.9, (dict(counts.missed), dict(counts.wrong))


def test_there_are_enough_labels_of_every_kind() -> None:
    total = Counter[str]()
    for part in PARTS:
        total += scores(part).right + scores(part).missed
    assert sum(total.values()) >= 400
    assert min(total[kind] for kind in total if kind != "password") >= 15


@pytest.mark.parametrize("file", ["train.jsonl", "demo.jsonl"])
def test_no_false_alarm_on_the_data_of_the_demo(file: str) -> None:
    lines = (EXAMPLES / "lighthouse" / file).read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines for text in json.loads(line).values()]
    assert len(texts) > 300
    assert [match for text in texts for match in recognise(text)] == []
