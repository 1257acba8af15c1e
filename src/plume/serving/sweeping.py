"""Now and then what has expired is removed, from the store and from the models' memory of prompts."""

from __future__ import annotations

import asyncio
import logging
import time

from plume.errors import PlumeError
from plume.memory.lifetime import sweep
from plume.memory.store import Store
from plume.serving.models import Models

log = logging.getLogger("plume.serving")
SECONDS = 600.0  # between two sweeps
PROMPT_SECONDS = 300.0  # that a prompt may be remembered: what somebody has erased is not known here
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


async def forgetting(models: Models, seconds: float = PROMPT_SECONDS) -> None:
    """Until cancelled: no model remembers a prompt for more than 1.2 times so many seconds, whoever asks it again."""
    while True:
        await asyncio.sleep(seconds / 5)
        for loaded in models.loaded:
            loaded.worker.forget_prompts(time.monotonic() - seconds)
