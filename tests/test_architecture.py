"""The rules of the layout: imports point down, help is cheap, the public names are the documented ones."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import plume
from conftest import TINY

SOURCE = Path(plume.__file__).parent

# From the bottom up; a module may import from lower rows and from its own package.
LAYERS = [
    {"errors", "types", "files", "processors"},
    {"recipe", "similar", "redact", "events"},
    {"text", "data", "runs", "cache"},
    {"checks", "memory"},
    {"models"},
    {"generation"},
    {"evaluation", "chat"},
    {"training"},
    {"serving"},
    {"cli"},
]
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}
WITHOUT_TORCH = {name for row in LAYERS[:4] for name in row}
# Annotations only: these names exist for the type checker and are never imported when running.
TYPE_ONLY = {("events", "recipe")}


def modules() -> Iterator[tuple[str, Path]]:
    for file in sorted(SOURCE.rglob("*.py")):
        part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part not in ("__init__", "__main__"):
            yield part, file


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}: relative import"


def test_imports_point_down_the_layers() -> None:
    wrong = []
    for part, file in modules():
        for name in imports(file):
            if not name.startswith("plume."):
                continue
            target = name.split(".")[1]
            allowed = target == part or ROW[target] < ROW[part] or (part, target) in TYPE_ONLY
            same_row_value = ROW[target] == ROW[part] == 0
            if not (allowed or same_row_value):
                wrong.append(f"{file.relative_to(SOURCE)} imports {name}")
    assert wrong == []


def test_lower_layers_run_without_torch() -> None:
    parts = sorted(WITHOUT_TORCH)
    files = [file for part, file in modules() if part in parts]
    names = [".".join(("plume", *file.relative_to(SOURCE).with_suffix("").parts)) for file in files]
    names = [name.removesuffix(".__init__") for name in names]
    code = f"import importlib, sys; [importlib.import_module(n) for n in {names!r}]; print('torch' in sys.modules)"
    assert _python(code) == "False"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["check", "--help"], ["--version"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys, contextlib, io\n"
        "from plume.cli import main\n"
        f"sys.argv = ['plume', *{arguments!r}]\n"
        "with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.suppress(SystemExit):\n"
        "    main.main()\n"
        "print('torch' in sys.modules)"
    )
    assert _python(code) == "False"


def test_the_first_step_imports_neither_torchs_compiler_nor_its_sharding(qa_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from plume.recipe import parse_recipe\n"
        "from plume.training.loop import train\n"
        "from plume.events import Step\n"
        f"recipe = parse_recipe({{**{TINY!r}, 'data': {str(qa_file)!r}, 'max_steps': 1}}, 'test')\n"
        f"events = train(recipe, {str(tmp_path / 'run')!r}, probe=True)\n"
        "stepped = any(isinstance(event, Step) for event in events)\n"
        "print(stepped, [name for name in ('torch._dynamo', 'torch.distributed.fsdp') if name in sys.modules])"
    )
    assert _python(code) == "True []"


def test_public_names_stay_callable_after_every_module_is_imported() -> None:
    names = [".".join(("plume", *file.relative_to(SOURCE).with_suffix("").parts)) for _, file in modules()]
    names = [name.removesuffix(".__init__") for name in names]
    code = (
        f"import importlib, plume; [importlib.import_module(n) for n in {names!r}]\n"
        "print(all(callable(getattr(plume, n)) for n in ('check', 'train', 'evaluate', 'load')))"
    )
    assert _python(code) == "True"
    assert set(plume.__all__) == set(dir(plume))


def test_files_and_functions_stay_short() -> None:
    """The visible list of exceptions may only shrink."""
    long = []
    for _, file in modules():
        text = file.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            long.append(str(file.relative_to(SOURCE)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                long.append(f"{file.relative_to(SOURCE)}:{node.name}")
    assert long == []


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    return done.stdout.strip()
