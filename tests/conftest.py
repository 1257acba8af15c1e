"""Small invented data and runs that several tests share."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stores import started  # noqa: F401

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PLUME_CACHE"] = "off"

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "eval_samples": 4, "torch_num_threads": 1}
PLACES = {"lamp": "tower", "boat": "harbour", "bread": "oven", "sheep": "meadow", "bell": "chapel"}
ASKED = ("Where is the {}?", "Tell me where the {} is.", "Où est « {} » ?")


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def qa_rows() -> list[dict[str, str]]:
    """15 rows: five facts in three phrasings, answers in JSON with accents."""
    return [
        {"prompt": asked.format(thing), "completion": json.dumps({"lieu": f"{place} été"}, ensure_ascii=False)}
        for thing, place in PLACES.items()
        for asked in ASKED
    ]


@pytest.fixture
def qa_file(tmp_path: Path, qa_rows: list[dict[str, str]]) -> Path:
    return write_rows(tmp_path / "qa.jsonl", qa_rows)


@pytest.fixture
def settings() -> Callable[..., list[str]]:
    """`--set` arguments of a tiny run, with changes."""

    def arguments(**changes: Any) -> list[str]:
        return [part for key, value in {**TINY, **changes}.items() for part in ("--set", f"{key}={value}")]

    return arguments


@pytest.fixture(autouse=True)
def _in_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
