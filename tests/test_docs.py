"""The documentation says nothing that is not so: generated pages, commands, links, dependencies."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from plume.checks.catalogue import CATALOGUE
from plume.recipe import Recipe
from plume.types import Sampling

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")])
EVERY = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`(plume [^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHELL = {"", "sh", "bash", "shell", "console"}


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every `plume …` in the shell blocks of a page and in code between backticks."""
    blocks = [body for _, language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language in SHELL]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    for line in [*lines, *SPAN.findall(prose(page))]:
        yield from calls(line)


def calls(line: str) -> Iterator[list[str]]:
    """Every call of plume in a line, which may have a prompt before it, pipes and a comment."""
    if "plume" not in line:
        return
    lexer = shlex.shlex(re.sub(r"^\s*[$>] ", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    arguments: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;()<>"):
            arguments.append([])
        else:
            arguments[-1].append(word)
    yield from (words[1:] for words in arguments if words and Path(words[0]).name == "plume")


def known_options() -> dict[str, set[str]]:
    """Options by verb ("" for the command itself, "data derive" for two words), from the help texts in docs/cli.md."""
    parts = re.split(r"^## `plume ?([\w -]*)`$", (DOCS / "cli.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        verb: set(re.findall(r"^│ \*? *(--[\w-]+)", text, re.MULTILINE)) | {"-h"}
        for verb, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def faults(arguments: list[str]) -> list[str]:
    """What in a call of plume does not exist: verb, options, keys of --set."""
    known = known_options()
    words = [word for word in arguments if not word.startswith("-")]
    groups = {name.split()[0] for name in known if " " in name}
    verb = " ".join(words[: 2 if words[:1] and words[0] in groups else 1])
    if verb not in known:
        return [] if verb in {"VERB", "…", "..."} else [f"no verb {verb}"]
    options = [word.partition("=")[0] for word in arguments if re.match(r"-{1,2}[a-z]", word)]
    wrong = [f"{verb} has no option {option}" for option in options if option not in known[verb] | known[""]]
    keys = set(Recipe.model_fields) if verb in ("train", "tune") else set(Sampling.__dataclass_fields__)
    pairs = [value for option, value in pairwise(arguments) if option == "--set"]
    given = [pair.partition("=")[0] for pair in pairs]
    return wrong + [f"{verb} --set has no key {key}" for key in given if key not in keys and key.islower()]


def test_generated_pages_are_those_of_the_program() -> None:
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_notices_a_changed_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate = runpy.run_path(str(DOCS / "generate.py"))
    for name in ("checks.md", "cli.md"):
        (tmp_path / name).write_bytes((DOCS / name).read_bytes())
    (tmp_path / "recipe.md").write_text("something else", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    cli = (DOCS / "cli.md").read_text(encoding="utf-8")  # making it takes long
    monkeypatch.setitem(generate["main"].__globals__, "DOCS", tmp_path)
    monkeypatch.setitem(generate["main"].__globals__, "cli_page", lambda: cli)
    assert generate["main"]() == 1
    said = capsys.readouterr().err
    assert "recipe.md" in said
    assert "cli.md" not in said
    assert "checks.md" not in said


def test_every_key_of_the_recipe_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "recipe.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(Recipe.model_fields)


def test_every_code_has_its_row() -> None:
    rows = re.findall(r"^\| (D\d{3}) \|", (DOCS / "checks.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(CATALOGUE)


@EVERY
def test_codes_are_those_of_the_catalogue(page: Path) -> None:
    assert set(re.findall(r"\bD\d{3}\b", page.read_text(encoding="utf-8"))) <= set(CATALOGUE)


@EVERY
def test_commands_use_verbs_and_options_that_exist(page: Path) -> None:
    wrong = [f"plume {shlex.join(call)}: {fault}" for call in commands(page) for fault in faults(call)]
    assert wrong == []


def test_commands_are_found_and_judged() -> None:
    assert sum(1 for _ in commands(DOCS / "getting-started.md")) > 10
    assert list(calls("$ .venv/bin/plume eval a b --json | head  # look")) == [["eval", "a", "b", "--json"]]
    assert faults(["train", "qa.jsonl", "--set", "max_steps=3", "--resume"]) == []
    assert faults(["sing"]) == ["no verb sing"]
    assert faults(["data", "derive", "qa.jsonl", "--drop-attribute", "age", "--output-dir", "d"]) == []
    assert faults(["data", "prepare", "r.yaml", "--field", "x"]) == ["data prepare has no option --field"]
    assert faults(["data", "sing"]) == ["no verb data sing"]
    assert faults(["ask", "m", "q", "--resume"]) == ["ask has no option --resume"]
    assert faults(["train", "q", "--set", "steps=3"]) == ["train --set has no key steps"]


@EVERY
def test_relative_links_point_to_files(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_dependencies_are_exactly_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = re.split(r"^## (.+)$", (DOCS / "dependencies.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    extras = project["optional-dependencies"]
    optional = [requirement for extra in extras if extra not in ("all", "dev") for requirement in extras[extra]]
    tables = {"At run time": project["dependencies"], "Optional": optional, "For development": extras["dev"]}
    for section, requirements in tables.items():
        rows = re.findall(r"^\| `([\w-]+)` \| `([^`]+)` \|", sections[section], re.MULTILINE)
        assert sorted("".join(row) for row in rows) == sorted(requirements)
