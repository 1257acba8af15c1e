"""Plume: the workshop for small language models.

>>> import plume
>>> findings = list(plume.check("qa.jsonl"))            # doctest: +SKIP
>>> events = list(plume.train(plume.Recipe(data="qa.jsonl"), "runs/qa"))   # doctest: +SKIP
>>> bundle = plume.load("runs/qa")                      # doctest: +SKIP

Importing plume is cheap: torch is imported by the first function that needs it.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plume import chat
    from plume.checks.run import check
    from plume.evaluation.run import evaluate
    from plume.generation.engine import Engine
    from plume.memory import open_store
    from plume.models.bundle import Bundle, load
    from plume.recipe import Recipe
    from plume.training.loop import train
    from plume.training.merge import merge
    from plume.types import Example, Message, Sampling

__all__ = [
    "Bundle",
    "Engine",
    "Example",
    "Message",
    "Recipe",
    "Sampling",
    "chat",
    "check",
    "evaluate",
    "load",
    "merge",
    "open_store",
    "train",
]

# Intel's matrix library adds in an order that does not depend on how many threads it gets, which on a busy machine
# varies. It reads this at its first use, so it is said before anything imports torch.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# A thread that waits for another soon sleeps instead of spinning: on a machine with other work a step then takes a
# fraction of the time, and on a quiet one as long as before. Read by GNU's OpenMP when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_HOMES = {
    "Bundle": "plume.models.bundle",
    "Engine": "plume.generation.engine",
    "Example": "plume.types",
    "Message": "plume.types",
    "Recipe": "plume.recipe",
    "Sampling": "plume.types",
    "check": "plume.checks.run",
    "evaluate": "plume.evaluation.run",
    "load": "plume.models.bundle",
    "merge": "plume.training.merge",
    "open_store": "plume.memory",
    "train": "plume.training.loop",
}


def __getattr__(name: str) -> Any:
    if name == "chat":  # a module: `plume.chat.turn`
        return importlib.import_module("plume.chat")
    if name not in _HOMES:
        raise AttributeError(f"module 'plume' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
