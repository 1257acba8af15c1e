"""Which store a verb works on: that of the server, unless a URL names another; with its key if it is sealed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plume.memory.store import Store

StoreUrl = Annotated[str | None, typer.Option(metavar="URL", help="The store of the server (else in --data-dir).")]
DataDir = Annotated[Path, typer.Option(metavar="DIR", help="The server's directory.")]
StoreKeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Key of a sealed store (else from PLUME_STORE_KEY and the like).")
]
DATA_DIR = Path("plume-data")
WHO = "command line"  # in the audit trail


def store_url(store: str | None, data_dir: Path) -> str:
    from plume.serving.settings import Settings

    url = Settings(data_dir=data_dir, store=store).store_url
    if store is None:
        data_dir.mkdir(parents=True, exist_ok=True)
    return url


def open_named(store: str | None, data_dir: Path, store_key_file: Path | None) -> Store:
    from plume.memory import open_store
    from plume.memory.master import master_keys

    return open_store(store_url(store, data_dir), keys=master_keys(store_key_file))


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
