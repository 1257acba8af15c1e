"""Answers that must satisfy a JSON Schema: are they valid, always, and what does it cost, beside other libraries?

    python benchmarks/json_schemas.py [--data DIR] [--models DIR] [--part generate|engine|instances|overhead]
        [--limit N] [--results FILE] [--peer LIBRARY=PYTHON]... [--bpe 8192] [--deadline 60]

DIR holds schemas, `{"schema": …, "tests": [{"data": …, "valid": …}]}` each or alone (the public originals are
JSONSchemaBench's); without it, the project's own are taken. The parts:

- generate: every schema with four tokenizers, at temperatures 0, 1 and 1.5, with at most the shortest answer's
  tokens +0, +1, +3, +10, and 64 and 512. The scores are random and hang on the last token, as an untrained bigram's.
- engine: the same through the engine with an untrained gpt, on every 20th schema.
- instances: which instances each library takes, compiling and masks, over one tokenizer, each library in a process
  of its own. `--peer xgrammar=/some/venv/bin/python` names the interpreter that has one (llguidance, outlines-core,
  lm-format-enforcer); those that are not named are left out.
- overhead: tokens/s of a random 124 M GPT-2, opened as `plume ask` opens it, with a schema and without.

The models' directory holds `stories260K` (a tokenizer of 512 tokens with byte fallback) and `gpt2-tokenizer`; what is
not there is left out. `--limit` takes the first schemas of an order by hash. With `--results` a run that was broken
off goes on where it stopped. The tables go to stderr; stdout has one JSON line per comparison, the headline last.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

import torch  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402

import json_tables as tables  # noqa: E402
from json_peers import Peer, asked_of  # noqa: E402
from plume.errors import PlumeError, UserError  # noqa: E402
from plume.generation.constrain import json_schema  # noqa: E402
from plume.generation.engine import Engine  # noqa: E402
from plume.models import gpt, hf  # noqa: E402
from plume.models.bundle import Bundle, bundle, for_answering  # noqa: E402
from plume.text.tokenizer import TextTokenizer, load_tokenizer, train_tokenizer  # noqa: E402
from plume.types import Chunk, Grammar, Sampling  # noqa: E402
from schema_cases import CORPUS, Case, Speaker, judge, read_cases, shuffled, text_of  # noqa: E402

TEMPERATURES = (0.0, 1.0, 1.5)
LIMITS = ("+0", "+1", "+3", "+10", "64", "512")
ENGINE_EVERY = 20
CACHE = 2**30  # bytes
THREADS = torch.get_num_threads()
PARTS = ("generate", "engine", "instances", "overhead")


@dataclass(frozen=True)
class Results:
    """Rows of a file, so that none is made twice."""

    file: Path

    def rows(self, part: str) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return [row for row in map(json.loads, lines) if row["part"] == part]

    def done(self, part: str) -> set[tuple[str, str]]:
        return {(row["by"], row["case"]) for row in self.rows(part)}

    def add(self, row: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=CORPUS)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--peer", action="append", default=[], help="LIBRARY=PYTHON")
    parser.add_argument("--bpe", type=int, default=8192, help="vocabulary of the byte-level tokenizer trained here")
    parser.add_argument("--deadline", type=float, default=60, help="seconds that a library may take for a schema")
    parser.add_argument("--tokens", type=int, default=128, help="of each answer whose overhead is measured")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the overhead's median is taken")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = shuffled(read_cases(options.data))[: options.limit]
    if not cases:
        print(f"{options.data} holds no schemas; JSONSchemaBench's are on the hub", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = Results(options.results or Path(folder) / "rows.jsonl")
        held = tokenizers(options.models, options.bpe)
        run(options, cases, held, results, Path(folder))


def run(
    options: argparse.Namespace,
    cases: Sequence[Case],
    held: dict[str, TextTokenizer],
    results: Results,
    folder: Path,
) -> None:
    parts = options.part or PARTS
    if "overhead" in parts:
        tables.overhead(list(overhead(list(held.values())[-1], options.tokens, options.repeats)))
    if "engine" in parts:
        for name, tokenizer in held.items():
            each(cases[::ENGINE_EVERY], "engine", name, untrained(tokenizer), results)
        tables.answers(results.rows("engine"), "engine")
    if "instances" in parts:
        name, tokenizer = list(held.items())[-1]
        instances(options, cases, name, tokenizer, results, folder)
        tables.instances(results.rows("instances"), cases)
    if "generate" in parts:
        for name, tokenizer in held.items():
            each(cases, "generate", name, untrained(tokenizer), results)
        tables.answers(results.rows("generate"), "generate")


def tokenizers(models: Path | None, size: int) -> dict[str, TextTokenizer]:
    """By name, the largest last."""
    files = [file for pattern in ("docs/*.md", "src/**/*.py", "*.md") for file in sorted(ROOT.glob(pattern))]
    trained = train_tokenizer("bpe", (file.read_text(encoding="utf-8") for file in files), size)
    found = {}
    for folder in ("stories260K", "gpt2-tokenizer"):
        if models and (models / folder).is_dir():
            found[folder] = load_tokenizer(models / folder)
        else:
            print(f"left out: {folder}, for --models does not hold it", file=sys.stderr)
    named = {f"byte-level {trained.vocab_size}": trained}
    named |= {f"{folder} {tokenizer.vocab_size}": tokenizer for folder, tokenizer in found.items()}
    return dict(sorted(named.items(), key=lambda pair: pair[1].vocab_size))


def untrained(tokenizer: TextTokenizer) -> Bundle:
    """A lively gpt that has learnt nothing."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.0, "max_length": 1024}
    model = gpt.build({"vocab_size": tokenizer.vocab_size, **sizes})
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return bundle(model, tokenizer, "raw", 256)


# --- answers ---------------------------------------------------------------------------------------


def each(cases: Sequence[Case], part: str, name: str, asked: Bundle, results: Results) -> None:
    """All answers to every schema that is not in the results yet."""
    done = results.done(part)
    speaker = Speaker(asked.model.vocab_size, asked.stop_ids)
    engine = Engine(asked, cache_nbytes=CACHE)
    for number, case in enumerate(cases):
        if (name, case.name) in done:
            continue
        row: dict[str, Any] = {"part": part, "by": name, "case": case.name, "family": case.family}
        started = time.perf_counter()
        try:
            grammar = json_schema(case.schema, asked)
        except UserError as error:
            results.add(row | {"refused": str(error)})
            continue
        except Exception as error:
            results.add(row | {"refused": None, "broken": repr(error)})
            continue
        row |= {"refused": None, "compile": time.perf_counter() - started, "shortest": grammar.shortest}
        valid = judge(case.schema)
        answers = []
        for limit in LIMITS:
            room = grammar.shortest + int(limit) if limit[0] == "+" else int(limit)
            for temperature in TEMPERATURES:
                answer = {"limit": limit, "temperature": temperature}
                if room < grammar.shortest:
                    answers.append(answer | {"too_short": True})
                    continue
                began = time.perf_counter()
                if part == "engine":
                    said = by_engine(engine, grammar, room, temperature, number)
                else:
                    said = by_speaker(speaker, asked, grammar, room, temperature, number)
                said |= {"seconds": time.perf_counter() - began}
                if not valid(said["text"]) or said["tokens"] > room:
                    said["invalid"] = True
                else:
                    del said["text"]
                answers.append(answer | said)
        results.add(row | {"answers": answers})


def by_speaker(
    speaker: Speaker, asked: Bundle, grammar: Grammar, room: int, temperature: float, seed: int
) -> dict[str, Any]:
    try:
        ids = speaker.answer(grammar, room, temperature, seed)
        return {"text": text_of(asked.tokenizer, ids), "tokens": len(ids)}
    except (ValueError, RuntimeError, PlumeError) as error:
        return {"text": "", "tokens": 0, "error": repr(error)}


def by_engine(engine: Engine, grammar: Grammar, room: int, temperature: float, seed: int) -> dict[str, Any]:
    """The engine looks at each answer again and raises where it is wrong: that counts as invalid here."""
    sampling = Sampling(max_new_tokens=room, temperature=temperature, seed=seed if temperature else 0)
    prompt = engine.bundle.tokenizer.encode("Réponse :")
    try:
        chunks = list(engine.stream(prompt, sampling, grammar=grammar))
    except PlumeError as error:
        return {"text": "", "tokens": 0, "error": repr(error)}
    return {"text": "".join(chunk.text for chunk in chunks), "tokens": sum(len(chunk.ids) for chunk in chunks)}


# --- beside the peers ------------------------------------------------------------------------------


def instances(
    options: argparse.Namespace,
    cases: Sequence[Case],
    name: str,
    tokenizer: TextTokenizer,
    results: Results,
    folder: Path,
) -> None:
    """Every library's verdict on every instance, in one row a schema."""
    peers = {"plume": sys.executable} | dict(peer.split("=", 1) for peer in options.peer)
    done = results.done("instances")
    for library, python in peers.items():
        left = [case for case in cases if (library, case.name) not in done]
        if not left:
            continue
        with Peer(library, python, tokenizer, folder, options.deadline) as peer:
            for row in asked_of(peer, left, tokenizer):
                results.add({"part": "instances", "by": library, "tokenizer": name, **row})


# --- what a schema costs ---------------------------------------------------------------------------

STEP = {
    "type": "object",
    "properties": {
        "tool": {"enum": ["lamp", "bell", "boat"]},
        "text": {"type": "string"},
        "metres": {"type": "number"},
    },
    "required": ["tool", "text", "metres"],
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": STEP, "minItems": 3}, "note": {"type": ["string", "null"]}},
    "required": ["steps", "note"],
    "additionalProperties": False,
}


def overhead(tokenizer: TextTokenizer, tokens: int, repeats: int) -> Iterator[dict[str, float]]:
    """Tokens a second of a random GPT-2 of 124 M, greedily, the sides alternating; compiling is not counted."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    inner = GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=tokenizer.eos_id))
    asked = for_answering(bundle(hf.HFModel(inner), tokenizer, "raw", tokens))
    engine, grammar = Engine(asked, cache_nbytes=CACHE), json_schema(ANSWER, asked)
    prompt = list(range(300, 332))
    for number in range(-1, repeats):
        run = {
            side: speed(engine.stream(prompt, Sampling(max_new_tokens=tokens), grammar=held))
            for side, held in (("plume", grammar), ("peer", None))
        }
        if number >= 0:  # the first one warms up
            yield run
    torch.set_num_threads(1)


def speed(chunks: Iterator[Chunk]) -> float:
    """Tokens a second behind the first one, so that reading the prompt does not count."""
    next(chunks)
    began, count = time.perf_counter(), 0
    for chunk in chunks:
        count += len(chunk.ids)
    return round(count / (time.perf_counter() - began), 2)


if __name__ == "__main__":
    main()
