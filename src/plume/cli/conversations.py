"""`plume conversations`: what is kept of people, and their rights to it."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plume.cli import answers, options, output, sealing
from plume.cli.stores import DATA_DIR, WHO, DataDir, StoreKeyFile, StoreUrl, day, open_named
from plume.errors import UserError
from plume.memory.store import LOCAL, RESERVED, unreserved

if TYPE_CHECKING:
    from plume.memory.store import Conversation, Counts, Store

LIST = "Examples: plume conversations list · plume conversations list --tenant school --user zoe --json"
SHOW = "Examples: plume conversations show conv_4f1d · plume conversations show lundi --tenant school"
EXPORT = "Examples: plume conversations export > mine.jsonl · plume conversations export --tenant school --user zoe"
ERASE = "Examples: plume conversations erase --user zoe · plume conversations erase --tenant school --yes"
PURGE = "Examples: plume conversations purge · plume conversations purge --store postgresql://…"
LIFETIME = "Examples: plume conversations lifetime · plume conversations lifetime --tenant school --days 90"
AUDIT = "Examples: plume conversations audit · plume conversations audit --tenant school --user zoe --json"

_MOST = 10_000  # that one sweep removes
Whose = Annotated[str, typer.Option(metavar="TENANT", help="Whose they are.")]
Wanted = Annotated[str | None, typer.Option(metavar="TENANT", help="Only of this tenant (else of all).")]
User = Annotated[str | None, typer.Option(metavar="NAME", help="Only about this person (else about everybody).")]


def list_(
    tenant: Wanted = None,
    user: User = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many of each tenant.")] = 100,
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Show which conversations there are, newest first."""

    with open_named(store, data_dir, store_key_file) as opened:
        names = [unreserved(tenant)] if tenant is not None else list(_tenants(opened))
        found = [(name, one) for name in names for one in opened.tenant(name).conversations(user=user, limit=limit)]
    if json:
        output.write_json({"conversations": [_value(name, one) for name, one in found]})
        return
    rows = []
    for name, one in found:
        end = day(one.expires_at) if one.expires_at else ""
        rows.append((name, one.id, one.user or "", str(one.head), day(one.updated_at), end))
    output.show_table(("tenant", "conversation", "about", "messages", "changed", "ends"), rows)


def show(
    id: Annotated[str, typer.Argument(metavar="CONVERSATION", help="Its id, as `plume conversations list` shows it.")],
    tenant: Whose = LOCAL,
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Show what was said in a conversation, with the calls of tools and their results."""

    with open_named(store, data_dir, store_key_file) as opened:
        found = opened.tenant(unreserved(tenant)).read(id)
    if json:
        items = [asdict(item.message) | {"id": item.id, "created_at": item.created_at} for item in found.items]
        output.write_json({**_value(tenant, found), "items": items})
        return
    for item in found.items:
        answers.show_message(item.message)


def export(
    tenant: Whose = LOCAL,
    user: User = None,
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
) -> None:
    """Print everything that is kept about a person or a tenant, as lines of JSON."""
    from plume.memory import rights

    with open_named(store, data_dir, store_key_file) as opened:
        for line in rights.export(opened, tenant, user, who=WHO):
            output.write(line)


def erase(
    tenant: Whose = LOCAL,
    user: User = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Erase everything that is kept about a person or a tenant, for good.

    Exit code 1 if the rows are gone, and the database could not overwrite what it holds of them.
    """
    from plume.memory import rights

    whose = f"everything of {tenant}" if user is None else f"everything about {user} of {tenant}"
    if not yes:
        _ask(whose)
    with open_named(store, data_dir, store_key_file) as opened:
        receipt = rights.erase(opened, tenant, user, who=WHO)
    if json:
        output.write_json(asdict(receipt))
    else:
        output.write(f"erased {whose}: {_said(receipt.removed)}, {receipt.keys} API keys")
        for left in receipt.left:
            output.note(f"left to do: {left}")
    if not receipt.scrubbed:
        raise typer.Exit(1)


def purge(
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Remove what has expired; nobody could read it any more."""
    from plume.memory import lifetime
    from plume.memory.store import Counts

    removed = Counts()
    with open_named(store, data_dir, store_key_file) as opened:
        while swept := lifetime.sweep(opened, _MOST, who=WHO):
            removed += swept
    if json:
        output.write_json(asdict(removed))
    else:
        output.write(f"removed {_said(removed)}")


def lifetime(
    tenant: Whose = LOCAL,
    days: Annotated[float | None, typer.Option(metavar="N", help="New conversations end after so many days.")] = None,
    forever: Annotated[bool, typer.Option("--forever", help="New conversations have no end.")] = False,
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Show or set how long the conversations of a tenant live."""
    from plume.memory import lifetime as lifetimes

    if forever and days is not None:
        raise UserError("--days and --forever were both given", "give one of them")
    with open_named(store, data_dir, store_key_file) as opened:
        if forever or days is not None:
            lifetimes.set_lifetime(opened, tenant, None if days is None else days * 86400, who=WHO)
        found = opened.tenant(unreserved(tenant)).lifetime()
    if json:
        output.write_json({"tenant": tenant, "lifetime": found})
    else:
        said = "for good" if found is None else f"for {found / 86400:g} days, counted from their creation"
        output.write(f"new conversations of {tenant} are kept {said}")


def audit(
    tenant: Wanted = None,
    user: User = None,
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Show who did what to whose data; names stand there as keyed hashes."""
    from plume.memory.audit import trail

    if user is not None and tenant is None:
        tenant = LOCAL
    with open_named(store, data_dir, store_key_file) as opened:
        for line in trail(opened, tenant, user):
            if json:
                output.write_json(line._asdict())
            else:
                rest = {name: value for name, value in line.entry.items() if name not in ("what", "who")}
                output.write(f"{day(line.at)} {line.entry['what']} by {line.entry['who']} {json_module.dumps(rest)}")


def application(guarded: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    """The group of these verbs."""
    app = typer.Typer(help="What is kept of conversations.", no_args_is_help=True, rich_markup_mode="rich")
    app.command("list", epilog=LIST)(guarded(list_))
    app.command("show", epilog=SHOW)(guarded(show))
    app.command("export", epilog=EXPORT)(guarded(export))
    app.command("erase", epilog=ERASE)(guarded(erase))
    app.command("purge", epilog=PURGE)(guarded(purge))
    app.command("lifetime", epilog=LIFETIME)(guarded(lifetime))
    app.command("audit", epilog=AUDIT)(guarded(audit))
    app.command("rotate-key", epilog=sealing.ROTATE)(guarded(sealing.rotate_key))
    app.command("verify", epilog=sealing.VERIFY)(guarded(sealing.verify))
    return app


def _tenants(store: Store) -> Iterator[str]:
    """All but Plume's own."""
    after = None
    while names := store.tenants(after=after):
        yield from (name for name in names if not name.startswith(RESERVED))
        after = names[-1]


def _ask(whose: str) -> None:
    if not sys.stdin.isatty():
        raise UserError(f"nobody confirms that {whose} is to be erased", "say --yes")
    if not typer.confirm(f"Erase {whose}? Nobody can bring it back", err=True):
        raise typer.Exit(1)


def _said(counts: Counts) -> str:
    return f"{counts.conversations} conversations with {counts.messages} messages, {counts.documents} documents"


def _value(tenant: str, one: Conversation) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": one.id,
        "user": one.user,
        "head": one.head,
        "created_at": one.created_at,
        "updated_at": one.updated_at,
        "expires_at": one.expires_at,
        "metadata": dict(one.metadata),
    }
