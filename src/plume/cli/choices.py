"""What Plume chose, in the words that `plume train` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from plume.events import Choice

_EXPLAINED = (
    "learning_rate",
    "muon_learning_rate",
    "max_steps",
    "per_device_train_batch_size",
    "hidden_size",
    "num_hidden_layers",
    "dropout",
    "max_length",
)


def lines(choices: Mapping[str, Choice]) -> Iterator[str]:
    """One line with its reason for each key that decides much, aligned; the others together on the last."""
    shown = {key: f"{key}={_number(choices[key].value)}" for key in _EXPLAINED if key in choices}
    width = max(map(len, shown.values()), default=0)
    for key, pair in shown.items():
        yield f"{pair:<{width}}  {choices[key].reason}"
    others = [f"{key}={_number(choice.value)}" for key, choice in choices.items() if key not in _EXPLAINED]
    if others:
        yield f"{', '.join(others)} (reasons in run.json)"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
