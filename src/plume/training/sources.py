"""Where a run's rows come from, and whether they are still what they were."""

from __future__ import annotations

import hashlib
from pathlib import Path

from plume.data.json_text import canonical
from plume.data.read import read
from plume.data.records import Reading
from plume.data.sql import is_url, safe_name
from plume.errors import UserError
from plume.models.catalog import find_directory
from plume.models.weights import is_quantized
from plume.recipe import Recipe
from plume.runs import fingerprint
from plume.types import Example

_OF_A_MODEL = {".safetensors", ".json", ".jinja", ".model", ".txt"}


def reading(recipe: Recipe) -> Reading:
    """How a recipe's data is to be read."""
    return Reading(recipe.split_documents, recipe.prompt_column, recipe.completion_column, recipe.query)


def replay_reading(recipe: Recipe) -> Reading:
    """How a recipe's replay file is to be read: the columns and the query named are those of the data."""
    return Reading(recipe.split_documents)


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """A sha256 of what stands now in each data file and base model directory, or of the rows a database gives.

    Raises UserError when something cannot be read.
    """
    found = {}
    base = recipe.model if Path(recipe.model).is_dir() else None
    for name in (recipe.data, recipe.eval_data, recipe.replay, base):
        if not name:
            continue
        try:
            if name == base:
                found[name] = _model_digest(find_directory(name))
            else:
                found[name] = _rows_digest(name, recipe) if is_url(name) else fingerprint(name)
        except OSError as error:
            reason = f"{name}: cannot be read to compare it with what was trained on ({error.strerror})"
            raise UserError(reason, "restore the file") from None
    return found


def _model_digest(directory: Path) -> str:
    """Of what makes a model answer: weights, configurations, tokenizer, template; not of what is said about it."""
    whole = hashlib.sha256()
    for file in sorted(file for file in directory.iterdir() if file.suffix in _OF_A_MODEL and not is_quantized(file)):
        whole.update(f"{file.name}\0{fingerprint(str(file))}\0".encode())
    return whole.hexdigest()


def _rows_digest(url: str, recipe: Recipe) -> str:
    digest = hashlib.sha256()
    for item in read(url, reading(recipe)):
        if isinstance(item, Example):
            digest.update(
                canonical([item.tools, *([each.role, each.said, each.weight] for each in item.messages)]).encode()
            )
    return digest.hexdigest()


def refuse_password(recipe: Recipe) -> None:
    """A recipe is kept with its run, so a password in it would be kept too."""
    for name in (recipe.data, recipe.eval_data, recipe.replay):
        if name and is_url(name) and safe_name(name) != name:
            raise UserError(
                f"{safe_name(name)}: the password would be written into the run's recipe.yaml",
                "leave it out of the URL: ~/.pgpass, PGPASSWORD or the server's own login files serve instead",
            )
