"""`plume conversations rotate-key` and `verify`: new keys for everything that is stored, and whether it all opens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from plume.cli import options, output
from plume.cli.stores import DATA_DIR, WHO, DataDir, StoreKeyFile, StoreUrl, open_named, store_url

if TYPE_CHECKING:
    from plume.memory.sealing.verify import Fault, Walked

ROTATE = (
    "Examples: PLUME_STORE_KEY=$NEW,$OLD plume conversations rotate-key · "
    "plume conversations rotate-key --seal --store-key-file store.key"
)
VERIFY = "Examples: plume conversations verify · plume conversations verify --store sqlite:///plume.db --json"
_UNFINISHED = {
    "sealing": "the sealing of this store",
    "rotating": "the replacement of its keys",
}


def rotate_key(
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    seal: Annotated[bool, typer.Option("--seal", help="Seal a store that is not sealed yet.")] = False,
    json: options.Json = False,
) -> None:
    """Seal everything with new keys under the first key given; the others are retired at the end.

    Others may read and write meanwhile, if they were given both keys. Killed, it goes on where it was.
    """
    from plume.data.sql import safe_name
    from plume.memory import audit, open_store
    from plume.memory.rights import scrub
    from plume.memory.sealing.master import master_keys
    from plume.memory.sealing.rotation import open_to_seal, rotate

    url, keys = store_url(store, data_dir), master_keys(store_key_file)
    sealed = 0
    with open_to_seal(url, keys) if seal else open_store(url, keys=keys) as found:
        for step in _shown("sealing", rotate(found, safe_name(url), keys)):
            sealed += step.sealed
        audit.record(found, "rotate_key", who=WHO, bodies=sealed)
        _, left = scrub(found)
    if json:
        output.write_json({"sealed": sealed, "key": keys[0].id, "left": left})
        return
    output.write(f"{sealed} bodies sealed anew; the store is sealed with key {keys[0].id}")
    for one in left:
        output.note(f"note: what was there before is gone from the rows, and not from everywhere: {one}")


def verify(
    store: StoreUrl = None,
    data_dir: DataDir = DATA_DIR,
    store_key_file: StoreKeyFile = None,
    json: options.Json = False,
) -> None:
    """Open every message, metadata and document, and name those that do not open.

    Exit code 1 if there are any, or if the store is still being sealed.
    """
    from plume.memory import audit
    from plume.memory.sealing.mark import state
    from plume.memory.sealing.verify import verify as verified

    faults: list[Fault] = []
    done = plain = 0
    with open_named(store, data_dir, store_key_file) as found:
        for step in _shown("verifying", verified(found), faults):
            done += 1
            plain += step.plain
        audit.record(found, "verify", who=WHO, faults=len(faults))
        now = state(found)
    if json:
        listed = [_value(fault) for fault in faults]
        output.write_json({"verified": done, "faults": listed, "state": now, "plain": plain})
    else:
        opened = f"{len(faults)} faults" if faults else "all open"
        output.write(f"{done} conversations and documents: {opened}" + f", {plain} bodies not sealed" * bool(plain))
        if now in _UNFINISHED:
            output.note(f"note: {_UNFINISHED[now]} has not come to its end: plume conversations rotate-key goes on")
    if faults or now == "sealing":
        raise typer.Exit(1)


def _shown(name: str, steps: Iterator[Walked | Fault], faults: list[Fault] | None = None) -> Iterator[Walked]:
    """The steps under a progress bar; faults go to stderr at once."""
    from plume.memory.sealing.verify import Fault

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    quiet = not sys.stderr.isatty()
    with Progress(*columns, TimeRemainingColumn(), console=output.err, transient=True, disable=quiet) as bar:
        task = bar.add_task(name, total=None)
        for step in steps:
            if isinstance(step, Fault):
                output.note(f"fault: {step.message}")
                if faults is not None:
                    faults.append(step)
            else:
                bar.update(task, completed=step.done, total=step.total)
                yield step


def _value(fault: Fault) -> dict[str, Any]:
    what, tenant, names = fault.section
    if what == "document":
        return {
            "tenant": tenant,
            "kind": names[0],
            "document": names[1],
            "revision": fault.number,
            "message": fault.message,
        }
    part = {"conversation": "message", "the vectors of conversation": "vector"}.get(what, "metadata")
    position = None if part == "metadata" else fault.number
    return {
        "tenant": tenant,
        "conversation": names[0],
        "part": part,
        "position": position,
        "message": fault.message,
    }
