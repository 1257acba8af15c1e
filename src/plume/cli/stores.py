"""Which store a verb works on: that of the server, unless a URL names another."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

StoreUrl = Annotated[str | None, typer.Option(metavar="URL", help="The store of the server (else in --data-dir).")]
DataDir = Annotated[Path, typer.Option(metavar="DIR", help="The server's directory.")]
DATA_DIR = Path("plume-data")
WHO = "command line"  # in the audit trail


def store_url(store: str | None, data_dir: Path) -> str:
    from plume.serving.settings import Settings

    url = Settings(data_dir=data_dir, store=store).store_url
    if store is None:
        data_dir.mkdir(parents=True, exist_ok=True)
    return url


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
