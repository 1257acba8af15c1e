"""Options that several verbs share, so that one thing has one name and one help text."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run directory, a model directory, or a hub id.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="A generation setting; may be given several times.")
]
SplitDocuments = Annotated[bool, typer.Option("--split-documents", help="Plain text: blank lines separate documents.")]
