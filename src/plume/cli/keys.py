"""`plume keys`: who may ask the server beyond this machine, and for which tenant."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plume.cli import options, output
from plume.cli.stores import DATA_DIR, WHO, DataDir, StoreKeyFile, StoreUrl, day, open_named

if TYPE_CHECKING:
    from plume.memory.keys import Key

CREATE = "Examples: plume keys create school · plume keys create school --scope read --days 30"
LIST = "Examples: plume keys list · plume keys list --tenant school --json"
REVOKE = "Examples: plume keys revoke 0f3a6b1c2d4e5f60"


def create(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="For whom the key speaks.")],
    name: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    scope: Annotated[list[str], typer.Option(help="read, write or admin; may be given several times.")] = [],  # noqa: B006
    days: Annotated[float | None, typer.Option(metavar="N", help="How long it holds (else for good).")] = None,
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Make a key and print it. It is shown this once: the store keeps a hash."""
    from plume.memory.keys import create_key

    ttl = None if days is None else days * 86400
    with open_named(store, data_dir, store_key_file, new=True) as opened:
        text, made = create_key(opened, tenant, name=name, scopes=scope or ("read", "write"), ttl=ttl, who=WHO)
    if json:
        output.write_json({"key": text, **_value(made)})
    else:
        output.write(text)
        output.note(f"note: kept as {made.prefix}, for {tenant}: {', '.join(made.scopes)}; it is not shown again")


def list_(
    tenant: Annotated[str | None, typer.Option(metavar="TENANT", help="Only the keys of this tenant.")] = None,
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Show what is known of the keys, newest first; the keys themselves nobody can show."""
    from plume.memory.keys import list_keys

    with open_named(store, data_dir, store_key_file) as opened:
        keys = list_keys(opened, tenant)
    if json:
        output.write_json({"keys": [_value(key) for key in keys]})
        return
    rows = []
    for key in keys:
        end = "revoked" if key.revoked else day(key.expires_at) if key.expires_at else ""
        rows.append((key.prefix, key.tenant, key.name, ", ".join(key.scopes), day(key.created_at), end))
    output.show_table(("prefix", "tenant", "name", "scopes", "made", "ends"), rows)


def revoke(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="The key's public part, as `plume keys list` shows.")],
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Let a key open nothing from now on."""
    from plume.memory.keys import revoke_key

    with open_named(store, data_dir, store_key_file) as opened:
        key = revoke_key(opened, prefix, who=WHO)
    if json:
        output.write_json(_value(key))
    else:
        output.write(f"{key.prefix} is revoked")


def application(guarded: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    """The group of these verbs."""
    app = typer.Typer(help="Keys for a server beyond this machine.", no_args_is_help=True, rich_markup_mode="rich")
    app.command("create", epilog=CREATE)(guarded(create))
    app.command("list", epilog=LIST)(guarded(list_))
    app.command("revoke", epilog=REVOKE)(guarded(revoke))
    return app


def _value(key: Key) -> dict[str, Any]:
    ends = None if key.expires_at is None else round(key.expires_at - time.time())
    return {
        "prefix": key.prefix,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": list(key.scopes),
        "revoked": key.revoked,
        "ends_in_seconds": ends,
    }
