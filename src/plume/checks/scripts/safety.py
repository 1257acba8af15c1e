"""D714, D718: files, keys and names."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator

from plume.checks.scripts.facts import Call, Facts, Place, end, parameters, start
from plume.checks.scripts.rules import RELATED, Found, rule
from plume.checks.scripts.subjects import is_headless, is_tokenizer, model_class

_KEY = re.compile(
    r"\b(?:sk-(?:proj-|ant-[\w-]{0,12})?[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,}|AIza[0-9A-Za-z_-]{35})"
)
_READERS = ("pickle.load", "pickle.loads", "joblib.load", "dill.load", "cPickle.load")
_NOTEBOOK = {"display", "get_ipython", "In", "Out", "_", "__file__", "__name__", "__doc__", "exit", "quit"}
_IDS = re.compile(r"input|encod|ids$|^tokens|batch|labels", re.IGNORECASE)


@rule("D714", "warning")
def code_from_files(facts: Facts) -> Iterator[Found]:
    for call in facts.calls:
        if call.name in _READERS:
            if not _own_file(facts, call, "dump"):
                yield Found(
                    call.node,
                    f"{call.name} runs whatever code the file carries",
                    "keep data as JSON lines or Parquet and weights as safetensors",
                    quote=call.name,
                )
        elif call.name == "torch.load" and not call.open:
            only = call.keywords.get("weights_only")
            if only is None and not _own_file(facts, call, "save"):
                fault = "torch before 2.6 runs whatever code the file carries"
            elif only is not None and facts.constant(only) is False:
                fault = "weights_only=False runs whatever code the file carries"
            else:
                continue
            yield Found(call.node, f"torch.load: {fault}", "pass weights_only=True, or keep weights as safetensors")
        trusted = call.keywords.get("trust_remote_code")
        if trusted is not None and facts.constant(trusted) is True:
            yield Found(
                next((keyword for keyword in call.node.keywords if keyword.arg == "trust_remote_code"), call.node),
                "trust_remote_code=True runs Python code that the model's author may change at any time",
                "use a model that transformers knows, or read the code and name its revision=",
                quote="trust_remote_code",
            )


def _own_file(facts: Facts, call: Call, writer: str) -> bool:
    """Did the script itself write the file, under the same name?"""
    read = _paths(facts, call.node)
    return any(read & _paths(facts, other.node) for other in facts.named(writer))


def _paths(facts: Facts, call: ast.Call) -> set[str]:
    """The file that a call reads or writes, through `open` and variables."""
    found = set()
    for argument in call.args:
        given = facts.follow(argument)
        for inner in [given, *(given.args[:1] if isinstance(given, ast.Call) else [])]:
            value = facts.follow(inner)
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.add(value.value)
            elif isinstance(value, ast.BinOp | ast.JoinedStr):
                found.add(ast.unparse(value))
    return found


@rule("D714", "warning")
def key_in_source(facts: Facts) -> Iterator[Found]:
    for node in facts.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (match := _KEY.search(node.value)):
            yield Found(
                node,
                "an access key stands in the source: whoever reads the script can use it",
                "revoke it, and read the new one from an environment variable",
                quote=match.group()[:6],
            )


@rule("D718", "warning")
def encoding_left_open(facts: Facts) -> Iterator[Found]:
    for call in facts.calls:
        if "encoding" in call.keywords or call.open:
            continue
        if call.name in ("open", "io.open"):
            mode, given = facts.constant(call.argument("mode", 1)), len(call.node.args) > 3
            unknown = mode is None and call.argument("mode", 1) is not None
        elif call.last in ("read_text", "write_text") and isinstance(call.node.func, ast.Attribute):
            mode, given, unknown = "r", len(call.node.args) > (call.last == "write_text"), False
        else:
            continue
        if not given and not unknown and "b" not in str(mode or "r"):
            yield Found(
                call.node,
                "the file is opened without encoding=: on another system accents are read as something else",
                'pass encoding="utf-8"',
                quote="open" if call.last == "open" else call.last,
            )


@rule("D718", "error")
def tokenizer_not_called(facts: Facts) -> Iterator[Found]:
    for node in facts.nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute() as value):
                pass
            case ast.keyword(arg=str(name), value=ast.Name() | ast.Attribute() as value):
                pass
            case _:
                continue
        if _IDS.search(name) and "tok" not in name.replace("tokens", "") and is_tokenizer(facts, value):
            yield Found(
                node,
                f"`{name}` is the tokenizer itself, not what it makes of a text",
                f'call it: {name} = {ast.unparse(value)}(text, return_tensors="pt")',
                quote=ast.unparse(node) if isinstance(node, ast.Assign) else name,
            )


@rule("D718", "error")
def generates_without_head(facts: Facts) -> Iterator[Found]:
    for call in facts.named("generate"):
        if isinstance(call.node.func, ast.Attribute):
            name = model_class(facts, call.node.func.value)
            if is_headless(name):
                yield Found(
                    call.node,
                    f"{name} has no language-model head and cannot generate text",
                    "load the model with AutoModelForCausalLM",
                )


@rule("D718", "error", whole=True)
def name_without_value(facts: Facts) -> Iterator[Found]:
    if _makes_names(facts):
        return
    first = _first_values(facts)
    given = {*dir(builtins), *_NOTEBOOK}
    said: set[str] = set()
    for node in facts.nodes:
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load) or node.id in said or node.id in given:
            continue
        if node.id not in first:
            said.add(node.id)
            yield Found(
                node,
                f"the name `{node.id}` is never given a value",
                "assign it, import it, or correct the spelling",
                quote=node.id,
            )
        elif first[node.id] > start(node) and not _runs_later(facts, node) and not _in_loop(facts, node):
            said.add(node.id)
            yield Found(
                node,
                f"`{node.id}` is used before it gets its value on line {RELATED}",
                "move the assignment above this line",
                (_at(facts, first[node.id]),),
                quote=node.id,
            )


def _makes_names(facts: Facts) -> bool:
    """Names can come from elsewhere: star imports, exec, globals()."""
    for node in facts.nodes:
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.Name) and node.id in ("exec", "globals", "locals", "vars", "get_ipython"):
            return True
    return False


def _at(facts: Facts, place: Place) -> ast.AST:
    """The innermost statement that ends at a place, or what begins there."""
    ending = [node for node in facts.nodes if isinstance(node, ast.stmt) and end(node) == place]
    return max(ending, key=start) if ending else next(node for node in facts.nodes if start(node) == place)


def _runs_later(facts: Facts, node: ast.AST) -> bool:
    """Functions run after the lines below them; classes and comprehensions run where they stand."""
    return any(isinstance(above, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for above in facts.above(node))


def _first_values(facts: Facts) -> dict[str, Place]:
    """Where each name first gets a value; (0, 0) for a name that may have one anywhere."""
    found: dict[str, Place] = {}
    for node in facts.nodes:
        for name, place in _valued(facts, node):
            found[name] = min(place, found.get(name, place))
    return found


def _valued(facts: Facts, node: ast.AST) -> Iterator[tuple[str, Place]]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            statement = facts.statement_of(node)
            if _in_comprehension(facts, node) or isinstance(facts.parents.get(node), ast.NamedExpr):
                yield name, (0, 0)
            elif isinstance(statement, ast.For | ast.With | ast.AsyncFor | ast.AsyncWith | ast.Match):
                yield name, start(node)
            else:
                yield name, end(statement)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, start(node)
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            for alias in names:
                yield alias.asname or alias.name.partition(".")[0], start(node)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name, (0, 0)
        case ast.MatchMapping(rest=str(name)):
            yield name, (0, 0)
        case ast.Global(names=names):
            for name in names:
                yield name, (0, 0)
    for name in parameters(node):
        yield name, (0, 0)


def _in_comprehension(facts: Facts, node: ast.AST) -> bool:
    return any(isinstance(above, ast.comprehension) for above in facts.above(node))


def _in_loop(facts: Facts, node: ast.AST) -> bool:
    """In a loop the line below may have run on the pass before."""
    return any(isinstance(above, ast.For | ast.While | ast.AsyncFor) for above in facts.above(node))
