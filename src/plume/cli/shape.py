"""Options that say what an answer may look like, and the grammar they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plume.errors import UserError

if TYPE_CHECKING:
    from plume.models.bundle import Bundle
    from plume.types import Grammar

Schema = Annotated[str | None, typer.Option(metavar="FILE", help="A JSON Schema; the answer will satisfy it.")]
AnyJson = Annotated[bool, typer.Option("--any-json", help="The answer will be JSON, of whatever shape.")]
Regex = Annotated[str | None, typer.Option(metavar="PATTERN", help="The whole answer will match this expression.")]
Choice = Annotated[list[str], typer.Option(metavar="TEXT", help="The answer will be one of these; give several.")]
GrammarFile = Annotated[
    str | None, typer.Option("--grammar", metavar="FILE", help="A context-free grammar in Lark's notation.")
]


@dataclass(frozen=True, slots=True)
class Shape:
    """What was asked of an answer; at most one of these."""

    schema: str | None = None
    any_json: bool = False
    regex: str | None = None
    choice: Sequence[str] = ()
    grammar: str | None = None


def reader(shape: Shape) -> Callable[[Bundle], Grammar] | None:
    """What makes the grammar once the model is there; files are read and checked at once.

    Raises UserError for several shapes at a time, a file that is missing, or a schema that is none.
    """
    from plume.generation import constrain

    asked: dict[str, Callable[[Bundle], Grammar]] = {}
    if shape.schema is not None:
        schema = _schema(shape.schema)
        asked["--schema"] = lambda bundle: constrain.json_schema(schema, bundle)
    if shape.any_json:
        asked["--any-json"] = constrain.any_json
    if (pattern := shape.regex) is not None:
        asked["--regex"] = lambda bundle: constrain.regex(pattern, bundle)
    if shape.choice:
        asked["--choice"] = lambda bundle: constrain.choice(shape.choice, bundle)
    if shape.grammar is not None:
        rules = _text(shape.grammar)
        asked["--grammar"] = lambda bundle: constrain.grammar(rules, bundle)
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} cannot be asked together", "choose one")
    return next(iter(asked.values()), None)


def _schema(file: str) -> Any:
    from plume.evaluation.run import read_schema

    return read_schema(file)


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file", "name a file that holds a grammar") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}", "save it as UTF-8 text") from None
