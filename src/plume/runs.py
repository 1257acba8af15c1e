"""A run directory: everything needed to repeat, resume or read a training run. Layout in docs/runs.md."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from plume.errors import UserError
from plume.files import atomic_directory, remove_leftovers, write_atomic
from plume.recipe import Recipe, dump_recipe, load_recipe

FORMAT = 1
Status = Literal["running", "interrupted", "finished", "failed"]
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "pydantic")


class Run:
    """Paths of a run and the few ways it changes. Creating one refuses a directory that holds anything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, recipe: Recipe, facts: Mapping[str, Any]) -> Run:
        """Make the directory with its recipe.yaml and run.json (status `running`)."""
        refuse_occupied(path)
        run = cls(path)
        info = {"format": FORMAT, "status": "running", **_environment(recipe), **facts}
        with atomic_directory(path) as building:
            cls(building).checkpoints.mkdir()
            cls(building)._write_info(info)
            write_atomic(cls(building).recipe_file, dump_recipe(recipe))
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run. Raises UserError when the directory is none."""
        run = cls(path)
        missing = [name for name in ("recipe.yaml", "run.json") if not (path / name).is_file()]
        if missing:
            raise UserError(
                f"{path} is not a run: it has no {missing[0]}", "start one: plume train DATA --output-dir DIR"
            )
        remove_leftovers(run.checkpoints)
        remove_leftovers(run.path)
        return run

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples_file(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    def recipe(self) -> Recipe:
        return load_recipe(self.recipe_file)

    def info(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "run.json").read_text(encoding="utf-8")))

    def update(self, **facts: Any) -> None:
        """Change facts of run.json, atomically."""
        self._write_info({**self.info(), **facts})

    def _write_info(self, info: Mapping[str, Any]) -> None:
        write_atomic(self.path / "run.json", json.dumps(info, indent=2, ensure_ascii=False) + "\n")

    def log(self, file: Path, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl or samples.jsonl."""
        with file.open("a", encoding="utf-8", newline="\n") as lines:
            lines.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        return list(_rows(self.metrics_file))

    def forget_after(self, step: int) -> None:
        """Drop logged lines of steps that a resumed run will do again."""
        for file in (self.metrics_file, self.samples_file):
            kept = [row for row in _rows(file) if row["step"] <= step]
            if file.exists():
                write_atomic(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))

    def write_eval(self, name: str, result: Mapping[str, Any]) -> Path:
        """Store an evaluation with its rows as eval/NAME.json."""
        file = self.path / "eval" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        return file


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").split("\n"):
        with contextlib.suppress(json.JSONDecodeError):  # a kill may cut the last line
            yield json.loads(line)


def refuse_occupied(path: Path) -> None:
    """Raise UserError unless `path` is free to become a run directory."""
    if path.resolve() == Path.cwd():
        raise UserError(f"{path} is the current directory, which cannot be replaced", "name a directory inside it")
    if path.is_dir() and any(path.iterdir()):
        hint = "choose another --output-dir, or continue that run with --resume"
        raise UserError(f"{path} is not empty", hint)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a directory", "choose another --output-dir")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UserError(f"{parent} is a file, not a directory", "choose another --output-dir")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{parent}: permission denied", "choose an --output-dir that you may write to")


def run_of(path: Path) -> Run | None:
    """The run that a path belongs to: itself, or the parent of its model directory."""
    for candidate in (path, path.parent):
        if (candidate / "recipe.yaml").is_file() and (candidate / "run.json").is_file():
            return Run(candidate)
    return None


def fingerprint(file: str) -> str:
    """sha256 of a file's bytes, or of the names and bytes of all files of a directory. Raises OSError."""
    path = Path(file)
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    whole = hashlib.sha256()
    for part in sorted(part for part in path.rglob("*") if part.is_file()):
        whole.update(f"{part.relative_to(path).as_posix()}\0{fingerprint(str(part))}\0".encode())
    return whole.hexdigest()


def _environment(recipe: Recipe) -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "plume": metadata.version("plume-lm"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        "seed": recipe.seed,
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """The commit checked out where the command was started, read from the files of .git."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        head = folder / ".git" / "HEAD"
        if head.is_file():
            text = head.read_text(encoding="utf-8").strip()
            if not text.startswith("ref: "):
                return text
            ref = folder / ".git" / text[5:]
            return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None
    return None
