"""D7 through its public door: a corpus of scripts with known faults, notebooks, and any bytes at all."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plume.checks.catalogue import CATALOGUE
from plume.checks.scripts import RULES, examine_script
from plume.checks.scripts.names import ARGUMENT_NAMES, REMOVED, TOKENIZER_METHODS, TRAINER_ARGUMENTS
from plume.errors import UserError
from plume.types import Finding

CORPUS = Path(__file__).parent / "corpus" / "scripts"
MANIFEST: dict[str, list[list[str | int | None]]] = json.loads((CORPUS / "manifest.json").read_text(encoding="utf-8"))
CODES = [f"D7{number:02}" for number in range(1, 19)]


def examined(tmp_path: Path, code: str, name: str = "script.py") -> list[Finding]:
    path = tmp_path / name
    path.write_text(code, encoding="utf-8")
    return list(examine_script(str(path)))


def notebook(*cells: str, indent: int | None = 1) -> str:
    made = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": cell.splitlines(True)} for cell in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=indent)


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_corpus(name: str) -> None:
    found = sorted([finding.code, finding.source.line] for finding in examine_script(str(CORPUS / name)))
    assert found == sorted(MANIFEST[name])


def test_corpus_is_complete() -> None:
    files = {
        path.relative_to(CORPUS).as_posix() for folder in ("correct", "faulty") for path in (CORPUS / folder).iterdir()
    }
    assert files == set(MANIFEST)
    expected = [code for found in MANIFEST.values() for code, _ in found]
    assert [code for code in CODES if expected.count(code) < 2] == []
    assert sum(not found for found in MANIFEST.values()) >= 14


def test_every_code_is_explained_with_its_severities() -> None:
    assert {rule.code for rule in RULES} == set(CODES)
    for rule in RULES:
        assert rule.severity in CATALOGUE[rule.code].severity


def test_findings_come_in_line_order_each_with_a_hint() -> None:
    for name in MANIFEST:
        lines = (CORPUS / name).read_text(encoding="utf-8").split("\n")
        found = list(examine_script(str(CORPUS / name)))
        assert [one.source.line or 0 for one in found] == sorted(one.source.line or 0 for one in found)
        for one in found:
            assert one.hint
            assert "\0" not in one.message
            assert all(related.line for related in one.related)
            assert 1 <= (one.source.line or 0) <= len(lines)


# --- reading ---------------------------------------------------------------------------------------

FAULT = "model.generate(ids, temperature=0.5, max_new_tokens=5)"


def test_notebook_finding_stands_at_the_line_of_the_file_and_names_the_cell(tmp_path: Path) -> None:
    text = notebook("model = ids = None\n" + FAULT, "print('again')\n" + FAULT)
    found = examined(tmp_path, text, "book.ipynb")
    assert [FAULT in text.split("\n")[(one.source.line or 0) - 1] for one in found] == [True, True]
    assert [one.message.split(":")[0] for one in found] == ["cell 1, line 2", "cell 2, line 2"]


def test_notebook_on_one_line_is_read_too(tmp_path: Path) -> None:
    found = examined(tmp_path, notebook("model = ids = None\n" + FAULT, indent=None), "book.ipynb")
    assert [(one.code, one.source.line, one.message.startswith("cell 1, line 2")) for one in found] == [
        ("D709", 1, True)
    ]


def test_broken_notebook_is_named_and_its_whole_cells_are_read(tmp_path: Path) -> None:
    text = notebook("model = ids = None\n" + FAULT, "print(1)")
    found = examined(tmp_path, text[: text.index("print(1)")], "book.ipynb")
    assert {one.code for one in found} == {"D709", "D718"}


def test_magics_and_prompts_are_set_aside(tmp_path: Path) -> None:
    cell = (
        "%matplotlib inline\n!pip install x\nfiles = !ls\nmodel = ids = None\nif True:\n    %time print(1)\nprint?\n"
        + FAULT
    )
    assert [one.code for one in examined(tmp_path, notebook(cell, "%%bash\nls | wc"), "book.ipynb")] == ["D709"]
    console = ">>> model = ids = None\n>>> for x in []:\n...     print(x)\n...\n1 result, unquoted\n>>> " + FAULT
    assert [(one.code, one.source.line) for one in examined(tmp_path, console)] == [("D709", 6)]


def test_statements_around_a_syntax_error_are_examined(tmp_path: Path) -> None:
    found = examined(tmp_path, f"model = ids = None\n{FAULT}\nx = = 3\n{FAULT}\n")
    assert [(one.code, one.source.line) for one in found] == [("D709", 2), ("D718", 3), ("D709", 4)]


def test_absence_proves_nothing_when_the_script_is_not_whole(tmp_path: Path) -> None:
    whole = "from somewhere import trainer_of\nprint(undefined)\n"
    assert [one.code for one in examined(tmp_path, whole)] == ["D718"]
    assert [one.source.line for one in examined(tmp_path, whole + "x = = 3\n")] == [3]


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    code = f"# été\nmodel = ids = None\n{FAULT}\n"
    for data in (code.encode("utf-8-sig"), code.encode("utf-16"), ("# coding: latin-1\n" + code).encode("latin-1")):
        path.write_bytes(data)
        assert [one.code for one in examine_script(str(path))] == ["D709"]
    path.write_bytes(code.encode("latin-1"))
    assert [one.code for one in examine_script(str(path))] == ["D718", "D709"]


def test_unreadable_files_are_the_only_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path, Path("a\0b.py")):
        with pytest.raises(UserError):
            list(examine_script(str(path)))


@pytest.mark.parametrize(
    "code",
    [
        "", "\0", "x = '\0'", "(" * 5000, "x = " + "(" * 150 + ")" * 150, "x = " + "+".join("a" * 20000),
        "-" * 9000 + "1", "x" + ".y" * 20000, "x = " + "f(" * 90 + ")" * 90, "if x:\n" * 200,
        "x = x\ny = y(x)\ndef f(f): return f(f)\nf(f)",
        "def a(): return b()\ndef b(): return a()\na().generate(b())\nwith open(a()) as a: a = a[a]",
        "self.x = self.x\nclass A:\n    def f(self): self.x = self.x.y; self.x.generate(self.x)",
    ],
)  # fmt: skip
def test_hostile_code_raises_nothing(tmp_path: Path, code: str) -> None:
    list(examine_script(str(_written(tmp_path / "a.py", code.encode()))))
    list(examine_script(str(_written(tmp_path / "a.ipynb", notebook(code).encode()))))


def test_hostile_notebooks_raise_nothing(tmp_path: Path) -> None:
    for text in (
        "[" * 100000,
        '{"cells": ' * 3000,
        "{}",
        "null",
        '"',
        '{"cells": {"source": "x"}}',
        '{"cells": [[]]}',
        '{"a":]}',
    ):
        list(examine_script(str(_written(tmp_path / "a.ipynb", text.encode()))))


WORDS = (
    "tokenizer model trainer Trainer( from_pretrained( generate( labels = input_ids .copy() , ) ( : def f return for "
    "in range(3) lambda x {'labels': } padding=True ' \" f'{x}' pad_token eos_token class A: self. if else import "
    "-100 ** * @ >>> % ! DataLoader( [0] ['labels'] with open( as while True: += \\"
)
LOOSE_CODE = st.lists(st.sampled_from([*WORDS.split(), "\n", "\n    ", "\t"]), max_size=40).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), LOOSE_CODE.map(str.encode)))
def test_any_bytes_are_examined(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.py", "a.ipynb"):
            list(examine_script(str(_written(Path(folder, name), data))))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# --- claims and close calls --------------------------------------------------------------------------


def test_removed_names_are_not_in_the_installed_transformers() -> None:
    import inspect

    import transformers

    here = {name.removeprefix("transformers.") for name in REMOVED if name.startswith("transformers.")}
    assert [name for name in here if hasattr(transformers, name)] == []
    arguments = inspect.signature(transformers.TrainingArguments).parameters
    assert [name for name in ARGUMENT_NAMES if name in arguments] == []
    assert [name for name in TRAINER_ARGUMENTS if name in inspect.signature(transformers.Trainer).parameters] == []
    assert [name for name in TOKENIZER_METHODS if hasattr(transformers.PreTrainedTokenizerFast, name)] == []


CAUSAL = """
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("./m")
model = AutoModelForCausalLM.from_pretrained("./m")
"""
TRAINED = (
    CAUSAL
    + """
rows = [tokenizer(f"Q: {q}\\nA: {a}") for q, a in [("x", "y")]]
def ask(text):
    ids = tokenizer(text, return_tensors="pt")
    return tokenizer.decode(model.generate(**ids, max_new_tokens=5)[0])
"""
)


@pytest.mark.parametrize(
    ("asked", "codes"),
    [
        ('ask("Q: Où ?\\nA:")', []),
        ('ask("Q: Où ?\\nA: ")', []),
        ("q = input()\nask(f'Q: {q}\\nA:')", []),
        ("q = input()\nask('Q: ' + q + '\\nA:')", []),
        ("q = input()\nask('Q: %s\\nA:' % q)", []),
        ("import sys\nask(sys.argv[1])", []),
        ('ask("Où ?")', ["D707"]),
        ("q = input()\nask(q)", ["D707"]),
        ("q = input()\nask(f'Q: {q}')", ["D707"]),
        ("q = input()\nask(f'Question: {q}\\nA:')", ["D707"]),
        ('for q in ["Où ?", "Qui ?"]:\n    ask(q)', ["D707"]),
    ],
)
def test_the_prompt_is_compared_with_the_training_rows(tmp_path: Path, asked: str, codes: list[str]) -> None:
    assert [one.code for one in examined(tmp_path, f"{TRAINED}\n{asked}\n")] == codes


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("model.generate(ids, max_new_tokens=5, temperature=0.5, do_sample=True)", []),
        ("model.generate(ids, max_new_tokens=5, temperature=1.0)", []),
        ("model.generate(ids, **options)", []),
        ("model.generate(ids, max_length=5)", ["D709"]),
        ("open('a.txt')", ["D718"]),
        ("open('a.bin', 'rb')", []),
        ("open('a.txt', options)", []),
        ("import torch\ntorch.load('x.pt', weights_only=True)", []),
        ("import torch\ntorch.save(ids, 'x.pt')\ntorch.load('x.pt')", []),
        ("import torch\ntorch.load('x.pt')", ["D714"]),
        ("print(kode)", ["D718"]),
        ("try:\n    import thing\nexcept ImportError:\n    thing = None\nprint(thing, [y for y in ids], __name__)", []),
        ("for n in range(3):\n    if n:\n        print(last)\n    last = n", []),
        ("input_ids = tokenizer", ["D718"]),
        ("Trainer(model, tokenizer)", ["D718"]),
    ],
)  # fmt: skip
def test_close_calls(tmp_path: Path, line: str, codes: list[str]) -> None:
    assert [one.code for one in examined(tmp_path, f"{CAUSAL}ids = options = {{}}.get(1)\n{line}\n")] == codes


def test_a_key_is_found_and_not_repeated(tmp_path: Path) -> None:
    key = "sk-" + "Ab3" * 10
    (found,) = examined(tmp_path, f'client = dict(api_key="{key}")\n')
    assert found.code == "D714"
    assert key not in found.message + found.hint + found.quote
