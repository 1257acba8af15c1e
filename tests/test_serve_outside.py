"""Other people's programs as clients of the server. `tests/outside/install` fetches them."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import write_rows
from plume.data.read import read
from plume.evaluation.metrics import summarise
from plume.evaluation.run import evaluate
from plume.generation.engine import Engine
from plume.models.bundle import Bundle
from plume.types import Example, Message
from serving import Running, running, taught, untrained

PROGRAMS = Path(__file__).parents[1] / ".venv-outside" / "bin"
GREETING = "Good day. It’s été!"
QUESTIONS = [
    {"prompt": "Hello", "completion": GREETING},
    {"prompt": "Hello.", "completion": "Nobody taught « this »."},
    {"prompt": "Where is the boat?", "completion": "On the moon."},
]
TEXTS = [
    "Où est le phare ? « Au large », dit-elle. 🦉 L’été.",
    "The boat lies in the harbour, and the bell is in the chapel.",
    "Le pain est au four. " * 10,
]
ASKS = """\
task: asks
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{completion}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 60, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
ROLLS = """\
task: rolls
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""


@functools.cache
def greeter() -> Bundle:
    """A model that knows two answers."""
    made = untrained()
    pairs = [("Hello", GREETING), ("Where is the boat?", "In the harbour.")]
    conversations = [(Message("user", asked), Message("assistant", reply)) for asked, reply in pairs]
    return taught([made.template.encode(one, made.tokenizer) for one in conversations])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("outside"), {"greeter": greeter()}) as server:
        yield server


def run(program: str, *arguments: str, cwd: Path, **environment: str) -> str:
    """What it prints, once it has come to a good end."""
    if not (PROGRAMS / program).is_file():
        if os.environ.get("PLUME_REQUIRE_SERVICES"):
            pytest.fail(f"{program} is missing")
        pytest.skip("needs tests/outside/install")
    kept = {"PATH": os.environ["PATH"], "HOME": str(cwd), "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd), **environment}
    done = subprocess.run(
        [str(PROGRAMS / program), *arguments], cwd=cwd, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def examples(file: Path) -> list[Example]:
    found = list(read(str(file)))
    assert all(isinstance(one, Example) for one in found)
    return [one for one in found if isinstance(one, Example)]


def test_lm_eval_finds_the_scores_that_plume_finds(served: Running, tmp_path: Path) -> None:
    asked = write_rows(tmp_path / "asked.jsonl", QUESTIONS)
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "asks.yaml").write_text(ASKS.format(file=asked))
    (tmp_path / "tasks" / "rolls.yaml").write_text(ROLLS.format(file=texts))
    made = greeter()
    where = f"model=greeter,base_url={served.url}/v1/completions,max_retries=1,max_length=512"
    run(
        *("lm_eval", "--model", "local-completions", "--model_args", where),
        *("--tasks", "asks,rolls", "--apply_chat_template", "--include_path", str(tmp_path / "tasks")),
        *("--output_path", str(tmp_path / "scores")),
        cwd=tmp_path,
    )
    (results,) = (tmp_path / "scores").rglob("results*.json")
    scores = json.loads(results.read_text(encoding="utf-8"))["results"]
    engine = Engine(made)
    ours = summarise(list(evaluate(engine, examples(asked), max_new_tokens=60)))
    rolled = summarise(list(evaluate(engine, examples(texts))))
    assert ours["exact_match"] is not None
    assert 0 < ours["exact_match"] < 1
    assert scores["asks"]["exact_match,none"] == pytest.approx(ours["exact_match"], abs=1e-3)
    assert rolled["bits_per_byte"] is not None
    assert scores["rolls"]["bits_per_byte,none"] == pytest.approx(rolled["bits_per_byte"], abs=1e-3)


def test_llm_chats_and_streams(served: Running, tmp_path: Path) -> None:
    entry = {"model_id": "phare", "model_name": "greeter", "api_base": f"{served.url}/v1"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([entry]))
    home = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "any"}
    assert "phare" in run("llm", "models", cwd=tmp_path, **home)
    asked = ("Hello", "-m", "phare", "-o", "temperature", "0")
    answer = run("llm", *asked, "--no-stream", cwd=tmp_path, **home)
    assert answer == f"{GREETING}\n"
    assert run("llm", *asked, cwd=tmp_path, **home) == answer
    assert run("llm", "Where is the boat?", "-m", "phare", "-c", "-o", "temperature", "0", cwd=tmp_path, **home)


HOOKS = '''\
import schemathesis

@schemathesis.hook
def map_body(context, body):
    """Half of what is asked should reach a model."""
    if isinstance(body, dict) and "model" in body and len(str(body)) % 2:
        body["model"] = "greeter"
        if "stream" in body:
            body["stream"] = len(str(body)) % 3 == 0
    return body
'''


def test_nothing_that_the_description_allows_breaks_the_server(served: Running, tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    output = run(
        *("schemathesis", "run", f"{served.url}/openapi.json", "--checks", checks, "--phases", "examples,fuzzing"),
        *("--max-examples", "25", "--seed", "7", "--generation-deterministic", "--no-color"),
        cwd=tmp_path,
        SCHEMATHESIS_HOOKS="hooks",
        PYTHONPATH=str(tmp_path),
    )
    tried = re.search(r"(\d+) generated, (\d+) passed", output)  # it also warns of what it cannot guess
    assert tried is not None, output
    assert tried[1] == tried[2], output
    samples = (one for family in served.service.metrics.registry.collect() for one in family.samples)
    calls = {one.labels["status"]: one.value for one in samples if one.name == "plume:http_requests_total"}
    assert int(tried[1]) > 200
    assert "200" in calls
