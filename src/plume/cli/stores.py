"""Which store a verb works on: that of the server, unless a URL names another; with its key if it is sealed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plume.errors import UserError

if TYPE_CHECKING:
    from plume.memory.store import Store

StoreUrl = Annotated[str | None, typer.Option(metavar="URL", help="The store of the server (else in --data-dir).")]
DataDir = Annotated[Path, typer.Option(metavar="DIR", help="The server's directory.")]
StoreKeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Key of a sealed store (else from PLUME_STORE_KEY and the like).")
]
DATA_DIR = Path("plume-data")
WHO = "command line"  # in the audit trail


def store_url(store: str | None, data_dir: Path, *, new: bool = False) -> str:
    """Raises UserError for a file that is not there, unless a `new` one may be made."""
    from plume.serving.settings import Settings

    url = Settings(data_dir=data_dir, store=store).store_url
    if not new:
        _check_there(url)
    elif store is None:
        data_dir.mkdir(parents=True, exist_ok=True)
    return url


def open_named(store: str | None, data_dir: Path, store_key_file: Path | None, *, new: bool = False) -> Store:
    from plume.memory import open_store
    from plume.memory.sealing.master import master_keys

    return open_store(store_url(store, data_dir, new=new), keys=master_keys(store_key_file))


def _check_there(url: str) -> None:
    """Opening would make the file: then a mistyped name would be a store in which all is well."""
    if not url.lower().startswith("sqlite"):
        return
    try:
        from plume.memory.sql.connect import sqlite_file
    except ModuleNotFoundError:  # opening says how to install it
        return
    file = sqlite_file(url)
    if file is not None and not file.exists():
        hint = "name the one that is meant with --store or --data-dir; plume chat, serve and keys create make a new one"
        raise UserError(f"there is no store {file}", hint)


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
