"""Options that several verbs share, so that one thing has one name and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from plume.data.records import Layout

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run directory, a model directory, or a hub id.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="A generation setting; may be given several times.")
]
SplitDocuments = Annotated[bool, typer.Option("--split-documents", help="Plain text: blank lines separate documents.")]
PromptColumn = Annotated[str | None, typer.Option(metavar="NAME", help="The column that asks (else recognised).")]
CompletionColumn = Annotated[str | None, typer.Option(metavar="NAME", help="The column that answers.")]
Query = Annotated[str | None, typer.Option(metavar="SQL", help="Which rows, when DATA is a database URL.")]
ForceFormat = Annotated[Layout | None, typer.Option(help="Read as this, whatever the name says.")]
Quantization = Annotated[
    Literal["int8", "int4"] | None, typer.Option(help="Open the copy in fewer bits that `plume export` wrote.")
]
Redact = Annotated[
    str | None,
    typer.Option(metavar="all|KIND,…", help="Take personal data out of what is stored (key: PLUME_VAULT_KEY)."),
]
RedactNames = Annotated[Path | None, typer.Option(metavar="FILE", help="Names to take out, too, one a line.")]
