"""`plume export`: a model for other programs, or in fewer bits, and what that costs."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from plume.checks.run import examine
from plume.checks.selection import Selection
from plume.cli import options, output
from plume.data.records import Reading
from plume.errors import DataError, PlumeError, UserError
from plume.files import write_atomic
from plume.runs import Run, run_of
from plume.types import Example

if TYPE_CHECKING:
    from plume.evaluation.agreement import Agreement

EXAMPLES = (
    "Examples: plume export runs/qa --format int8 · plume export ./model --format int4 --questions test.jsonl · "
    "plume export runs/qa --format gguf --outtype q8_0 --output qa.gguf"
)
_ASKED = 100


def export(
    model: options.Model,
    format: Annotated[Literal["int8", "int4", "gguf"], typer.Option(help="What to write.")],
    file: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where to write it (else beside the weights).")
    ] = None,
    questions: Annotated[
        str | None, typer.Option(metavar="DATA", help="Rows to ask (else those that the run held out).")
    ] = None,
    outtype: Annotated[Literal["f32", "q8_0"] | None, typer.Option(help="Numbers of a gguf file (else f32).")] = None,
    json: options.Json = False,
) -> None:
    """Write a model in 8 or 4 bits, or as the GGUF file that llama.cpp and Ollama open.

    After quantising, the original and the written file answer 100 questions; how often they agree, exact match and
    perplexity are printed, and kept beside the file. An int4 file that has lost more than 0.02 of exact match, gained
    more than 5 % of perplexity or answers more than half of the questions differently is not kept (exit code 1).
    """
    if format == "gguf":
        _refuse("--questions", questions, "a gguf file is not asked anything")
        _gguf(model, file, outtype or "f32", json=json)
        return
    _refuse("--outtype", outtype, "the types of int8 and int4 files are fixed")
    _quantized(model, format, file, questions, json=json)


def _refuse(name: str, value: object, reason: str) -> None:
    if value is not None:
        raise UserError(f"{name} does not go with this format: {reason}", f"leave out {name}")


def _gguf(model: str, file: Path | None, outtype: str, *, json: bool) -> None:
    from plume.models.bundle import load
    from plume.models.catalog import find_directory
    from plume.models.gguf import write_gguf

    directory = find_directory(model)
    written = file or directory / f"model-{outtype}.gguf"
    _refuse_place(written, asked=file is not None)
    write_gguf(load(model), directory, written, outtype)
    result = {"model": model, "format": "gguf", "outtype": outtype, "file": str(written)}
    _say({**result, "bytes": written.stat().st_size}, None, json=json)


def _quantized(
    model: str, kind: Literal["int8", "int4"], file: Path | None, questions: str | None, *, json: bool
) -> None:
    from plume.evaluation.agreement import agree
    from plume.generation.engine import Engine
    from plume.models.bundle import load, load_file
    from plume.models.catalog import find_directory
    from plume.models.quantized import write_quantized
    from plume.models.weights import quantized_file

    directory = find_directory(model)
    examples, source = _examples(model, questions)
    bundle = load(model)
    if bundle.adapter:
        hint = f"merge it first: plume merge {model} --output-dir DIR"
        raise UserError(f"{model} is an adapter; its base and it must be one model to be quantised", hint)
    written = file or quantized_file(directory, kind)
    if written.suffix != ".safetensors":
        raise UserError(f"{written} would hold safetensors", "let its name end in .safetensors")
    _refuse_place(written, asked=file is not None)
    _refuse_place(written.with_suffix(".json"), asked=file is not None)
    trial = written.with_name(f".{written.name}.trial")
    try:
        write_quantized(bundle.model, kind, directory, trial)
        found = agree(Engine(bundle), Engine(load_file(directory, trial)), examples)
        if kind == "int4" and not found.passed:
            raise PlumeError(_lost(found), "use --format int8, which keeps more")
        trial.replace(written)
    finally:
        trial.unlink(missing_ok=True)
    result = {"model": model, "format": kind, "file": str(written), "bytes": written.stat().st_size}
    result |= {"questions_from": source, "passed": found.passed, **asdict(found)}
    write_atomic(written.with_suffix(".json"), jsonlib.dumps(result, indent=1, ensure_ascii=False) + "\n")
    _say(result, found, json=json)


def _refuse_place(file: Path, *, asked: bool) -> None:
    """Nothing is replaced but what an export wrote before at its own place: else it might be the model itself."""
    if not file.parent.is_dir():
        raise UserError(f"{file.parent} is no directory", "make it, or name another --output")
    if file.is_dir():
        raise UserError(f"{file} is a directory", "name a file: --output FILE")
    if asked and file.exists():
        raise UserError(f"{file} exists already", "remove it, or name another --output")


def _examples(model: str, questions: str | None) -> tuple[Sequence[Example], str]:
    """What is asked, and where it is from: a file, or what the run held out (else what it trained on)."""
    from plume.training.measure import spread

    if questions:
        examined = examine(questions, Reading(), Selection(select=("D1",)))
        if not examined.examples:
            raise DataError(f"{questions} holds no example", examined.errors, f"`plume check {questions}` lists all")
        return spread(examined.examples, _ASKED), questions
    run = run_of(Path(model))
    if run is None:
        raise UserError(f"{model} is not a run, so no questions are known", "name some: --questions DATA")
    return _of_run(run)


def _of_run(run: Run) -> tuple[Sequence[Example], str]:
    from plume.training.measure import spread
    from plume.training.sources import fingerprints, reading

    recipe = run.recipe()
    if recipe.eval_data:
        return spread(examine(recipe.eval_data, reading(recipe), Selection(select=("D1",))).examples, _ASKED), "eval"
    examples = examine(recipe.data, reading(recipe), Selection(select=("D1",))).examples
    if fingerprints(recipe)[recipe.data] != run.info()["data"].get(recipe.data):
        raise UserError(f"{recipe.data} is no longer what was trained on", "name questions: --questions DATA")
    names = set(run.info()["held_out"])
    held_out = [example for example in examples if str(example.source) in names]
    return (spread(held_out, _ASKED), "held_out") if held_out else (spread(examples, _ASKED), "recall")


def _lost(found: Agreement) -> str:
    before, after = found.original, found.quantized
    match = f"exact match {_number(before['exact_match'])} → {_number(after['exact_match'])}, "
    alike = "" if found.agreement is None else f"the same answer to {found.agreement:.1%} of the questions, "
    return (
        f"int4 loses too much: {alike}{match if before['exact_match'] is not None else ''}"
        f"perplexity {_number(before['perplexity'])} → {_number(after['perplexity'])}; nothing was written"
    )


def _say(result: dict[str, Any], found: Agreement | None, *, json: bool) -> None:
    if json:
        output.write_json(result)
        return
    output.write(result["file"])
    output.note(f"{result['bytes'] / 1e6:.1f} MB")
    if found is None:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("score", "original", result["format"]):
        table.add_column(column, justify="left" if column == "score" else "right")
    for name, score in found.original.items():
        if score is not None:
            table.add_row(name, _number(score), _number(found.quantized[name]))
    output.err.print(table)
    if found.agreement is not None:
        output.note(f"the same answer to {found.agreement:.1%} of {found.questions} questions")
    if not found.passed:
        output.note(
            "note: this copy has lost more than 0.02 of exact match or 5 % of perplexity, or answers more than half of "
            "the questions differently"
        )


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
