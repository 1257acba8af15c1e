"""The command `plume`. Verbs import torch only when they run, so that help comes at once."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer

from plume.cli import (
    ask,
    calibrate,
    chat,
    check,
    conversations,
    data,
    evaluate,
    explain,
    export,
    generate,
    keys,
    merge,
    output,
    serve,
    train,
    tune,
)

app = typer.Typer(
    name="plume",
    help="The workshop for small language models: check the data, train, prove how good it is, ask.",
    epilog="Start here: plume check qa.jsonl · plume train qa.jsonl · plume ask runs/NAME 'question'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        output.write(f"plume {metadata.version('plume-lm')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """The workshop for small language models: check the data, train, prove how good it is, ask."""


def _guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """Everything expected ends in a message and an exit code, never in a traceback (but for --debug)."""

    @functools.wraps(verb)
    def run(*args: Any, **options: Any) -> None:
        with output.errors(debug="--debug" in sys.argv):
            verb(*args, **options)

    return run


for _name, _verb, _examples in (
    ("check", check.check, check.EXAMPLES),
    ("explain", explain.explain, explain.EXAMPLES),
    ("train", train.train, train.EXAMPLES),
    ("tune", tune.tune, tune.EXAMPLES),
    ("eval", evaluate.evaluate, evaluate.EXAMPLES),
    ("calibrate", calibrate.calibrate, calibrate.EXAMPLES),
    ("ask", ask.ask, ask.EXAMPLES),
    ("chat", chat.chat, chat.EXAMPLES),
    ("generate", generate.generate, generate.EXAMPLES),
    ("merge", merge.merge, merge.EXAMPLES),
    ("export", export.export, export.EXAMPLES),
    ("serve", serve.serve, serve.EXAMPLES),
):
    app.command(_name, epilog=_examples)(_guarded(_verb))


app.add_typer(data.application(_guarded), name="data")
app.add_typer(conversations.application(_guarded), name="conversations")
app.add_typer(keys.application(_guarded), name="keys")


def main() -> None:
    """Entry point; both streams are UTF-8 whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    app()
