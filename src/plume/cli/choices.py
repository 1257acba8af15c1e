"""What Plume chose, in the words that `plume train` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from plume.types import Choice

_FIRST = ("learning_rate", "muon_learning_rate", "max_steps", "num_train_epochs", "per_device_train_batch_size")


def lines(choices: Mapping[str, Choice]) -> Iterator[str]:
    """One line a key, aligned, those first that decide most."""
    ranked = sorted(choices, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    shown = {key: _number(choices[key].value) for key in ranked}
    width = max((len(f"{key}={value}") for key, value in shown.items()), default=0)
    for key in ranked:
        yield f"{f'{key}={shown[key]}':<{width}}  {choices[key].reason}"


def _number(value: str | int | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
