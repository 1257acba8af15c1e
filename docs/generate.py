"""Writes docs/checks.md, docs/cli.md and docs/recipe.md from the program, so that none can say what is not so.

python docs/generate.py            write all three
python docs/generate.py --check    exit 1 when a file differs from what would be written
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plume.checks.catalogue import CATALOGUE, FAMILIES
from plume.checks.catalogue.entry import Entry
from plume.cli.main import app
from plume.recipe import Recipe

DOCS = Path(__file__).parent
WIDTH = 100
NOTE = "<!-- Written by docs/generate.py. Change the source, then run `make docs`. -->"

RECIPE = """\
# The recipe

A recipe holds every choice that a training run is made with. You never have to write one. Set single keys on
the command line with `--set key=value`, as often as you like:

```sh
plume train qa.jsonl --set max_steps=300 --set seed=1
```

Or keep keys in a YAML file, one `key: value` a line, and pass it with `--recipe FILE`. What stands on the
command line wins over the file. `plume train --list-recipes` prints the names of the recipes that come with
Plume; `--recipe NAME` takes one of them.

"Chosen from the data" means: if you leave the key out, Plume chooses a value before the first step, prints it
on the lines `chosen`, and writes it to `recipe.yaml` in the run directory. The choice depends on the data, the
model, the seed and (for `torch_num_threads`) the number of CPU cores, never on timing. A fine-tuned model
brings its own tokenizer, template and sizes; there these keys stay empty, and setting one is refused.

Two keys have an option of their own beside `--set`: `model` (`--model`) and `eval_data` (`--eval-data`).
`split_documents` is the flag `--split-documents`, and `data` is the argument DATA.

An unknown key or a wrong value is an error before anything is written; for an unknown key, Plume names the
nearest known one.

"""

CLI = """\
# The command line

This is what `plume --help` and `plume VERB --help` print. Results go to stdout, everything else to stderr, so
`plume ask … > answer.txt` holds the answer alone.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | `check` found an error, `data derive` left something behind, or the operation failed |
| 2 | a mistake in the request or in the data: a missing file, an unknown key, a wrong option |
| 130 | interrupted with Ctrl-C |

`MODEL` is a run directory, a model directory, or a hub id such as `org/name`. The keys of `--set` are those of
[the recipe](recipe.md) for `plume train` and `plume tune`; for `plume ask` and `plume generate` they are
[the settings of an answer](generation.md).

"""

CHECKS = """\
# Every check

All that Plume looks for, by family. [The doctor](doctor.md) says how to use it.
`plume check --list` prints the codes, `plume explain D203` one of them. A code keeps its meaning for ever.

*Severity* is what a finding has unless `plume.toml` says otherwise. An error in data, settings or tokens stops
`plume train` unless `--force` is given; a warning is printed; "info" is a remark. *Fixable* is what
`plume check FILE --fix OUT` corrects by itself wherever the correction can only be one; what would be a guess is left
to you, or left out of the copy.

Percentages under "Why" were measured, most of them on one small model by changing the named thing alone: set up
correctly it gave every answer exactly. They show what may happen, and are no forecast for another model.
"""

# Left out, it is left out: nothing is chosen for it.
WITHOUT_CHOICE = {
    "data": "none: name a file",
    "eval_data": "none: rows are held out of `data`",
    "replay": "none: forgetting is not measured",
    "model_size": "none: by the data",
    "lora_r": "none: all weights are trained",
    "device": "the best that is there",
    "bf16": "where the device has units for it and it pays",
}


def recipe_page() -> str:
    """A table of every key of the recipe."""
    rows = ["| key | type | default | what it does |", "|---|---|---|---|"]
    for name, schema in Recipe.model_json_schema()["properties"].items():
        cells = [f"`{name}`", _kind(schema), _default(name, schema["default"]), schema["description"]]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return _page(RECIPE + "\n".join(rows))


def checks_page() -> str:
    """A table of every code for each family."""
    return _page("\n".join([CHECKS, *_families()]).rstrip("\n"))


def _families() -> Iterator[str]:
    for family, name in FAMILIES.items():
        yield f"## {family} {name}\n"
        yield "| code | finding | severity | why | fix | fixable |\n|---|---|---|---|---|---|"
        for code, entry in CATALOGUE.items():
            if code.startswith(family):
                yield _check_row(code, entry)
        yield ""


def _check_row(code: str, entry: Entry) -> str:
    cells = [code, entry.title, entry.severity, entry.why, entry.fix, "yes" if entry.fixable else ""]
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Text of a table; what stands between backticks is code, the rest plain text."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"([<*])", r"\\\1", plain) for plain in parts[::2]]
    return "`".join(parts)


def cli_page() -> str:
    """The help text of the command and of every verb, verbs of two words included."""
    asked = [(), *verbs()]
    sections = [
        f"## `{' '.join(('plume', *verb))}`\n\n```text\n{text}\n```"
        for verb, text in zip(asked, help_texts(asked), strict=True)
    ]
    return _page(CLI + "\n\n".join(sections))


def verbs() -> list[tuple[str, ...]]:
    """`("check",)`, …, `("data",)`, `("data", "derive")`, …"""
    found: list[tuple[str, ...]] = [(str(command.name),) for command in app.registered_commands]
    for group in app.registered_groups:
        found.append((str(group.name),))
        if group.typer_instance:
            found += [(str(group.name), str(command.name)) for command in group.typer_instance.registered_commands]
    return found


ASK = """
import contextlib, io, json, sys
from plume.cli.main import main
for verb in json.load(sys.stdin):
    sys.argv = ["plume", *verb, "--help"]
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main()
    said.flush()
    print(json.dumps(said.buffer.getvalue().decode("utf-8")))
"""


def help_texts(asked: Sequence[tuple[str, ...]]) -> list[str]:
    """What `plume [VERB] --help` prints for each, at a fixed width and without colours."""
    forced = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TERMINAL_WIDTH", "LINES"}
    kept = {name: value for name, value in os.environ.items() if name not in forced}
    fixed = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": str(WIDTH), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps(asked),
        env=kept | fixed,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=True,
    )
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    return ["\n".join(line.rstrip() for line in text.splitlines()).strip("\n") for text in printed]


def _page(text: str) -> str:
    title, rest = text.split("\n", 1)
    return f"{title}\n\n{NOTE}\n{rest}\n"


def _kind(schema: Mapping[str, Any]) -> str:
    """The type in words, from the field's JSON Schema."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return " or ".join(_one_kind(kind) for kind in kinds)


def _one_kind(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_one_kind(schema['items'])}"
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {schema[name]:g}" for name, word in bounds.items() if name in schema]
    return ", ".join([words[schema["type"]], *limits])


def _default(name: str, value: Any) -> str:
    if name in WITHOUT_CHOICE:
        return WITHOUT_CHOICE[name]
    if value is None:
        return "chosen from the data"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/checks.md, docs/cli.md and docs/recipe.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    check = parser.parse_args().check
    stale = []
    pages = {"checks.md": checks_page(), "cli.md": cli_page(), "recipe.md": recipe_page()}
    for name, text in pages.items():
        file = DOCS / name
        if check and (not file.is_file() or file.read_text(encoding="utf-8") != text):
            stale.append(name)
        elif not check:
            file.write_text(text, encoding="utf-8", newline="\n")
    if stale:
        sys.stderr.write(f"docs/{' and docs/'.join(stale)} differ from the program: run `make docs`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
