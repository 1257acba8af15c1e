"""Now and then what has expired is removed; nobody could read it any more."""

from __future__ import annotations

import asyncio
import logging

from plume.errors import PlumeError
from plume.memory.lifetime import sweep
from plume.memory.store import Store

log = logging.getLogger("plume.serving")
SECONDS = 600.0  # between two sweeps
_AT_ONCE = 1000  # so that requests get their turn between


async def sweeping(store: Store, seconds: float = SECONDS) -> None:
    """Until cancelled. Several servers may do it on one store."""
    while True:
        try:
            while await asyncio.to_thread(sweep, store, _AT_ONCE, who="server"):
                pass
        except PlumeError as error:
            log.warning("nothing was swept: %s", error.message)
        await asyncio.sleep(seconds)
