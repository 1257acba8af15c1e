"""`plume merge`: an adapter and its base become one model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plume.cli import output

EXAMPLES = "Examples: plume merge runs/qa --output-dir ./merged · plume merge ./adapter --output-dir ./merged"


def merge(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A run that trained an adapter, or its directory.")],
    output_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where the model directory is written.")],
) -> None:
    """Add an adapter (LoRA) to its base, for good.

    The result is an ordinary model directory, which needs neither the adapter nor its base, and answers as the two
    did together.
    """
    from plume.training.merge import merge as run_merge

    output.write(str(run_merge(adapter, output_dir)))
