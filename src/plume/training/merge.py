"""An adapter and its base become one ordinary model directory."""

from __future__ import annotations

import os
from pathlib import Path

from plume.errors import UserError
from plume.files import atomic_directory
from plume.models.adapter import merge_and_unload
from plume.models.bundle import load, save
from plume.models.catalog import find_directory
from plume.runs import refuse_occupied
from plume.training.card import merged_card


def merge(adapter: str | os.PathLike[str], output_dir: str | os.PathLike[str]) -> Path:
    """Write base and adapter (a run or an adapter directory) as a full model directory, which is returned.

    Its logits are those of the two together, to 1e-5. Raises UserError when there is no adapter to merge, or the
    directory is not empty.
    """
    target = Path(output_dir)
    refuse_occupied(target)
    opened = load(os.fspath(adapter))
    if opened.adapter is None:
        raise UserError(f"{adapter} is no adapter: it is a whole model already", "nothing is to be merged")
    directory = find_directory(os.fspath(adapter))
    merge_and_unload(opened.adapter)
    with atomic_directory(target) as building:
        save(opened.whole(), building, merged_card(directory, opened.adapter))
    return target
