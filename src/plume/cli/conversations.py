"""`plume conversations`: what the store of the server keeps."""

from __future__ import annotations

from collections.abc import Callable

import typer

from plume.cli import sealing


def application(guarded: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    """The group of these verbs."""
    app = typer.Typer(help="The conversations that a server keeps.", no_args_is_help=True, rich_markup_mode="rich")
    app.command("rotate-key", epilog=sealing.ROTATE)(guarded(sealing.rotate_key))
    app.command("verify", epilog=sealing.VERIFY)(guarded(sealing.verify))
    return app
