"""What a script does, read from its syntax tree: scopes, bindings, imports and calls.

Names are followed to what was last assigned to them before the place that uses them, through functions that are
called once and helpers with one return; whatever stays unknown stays an unresolved name, and a rule that needs to
know keeps silent.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

_SCOPES = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ENCODING = re.compile(r"input|enc|batch|tok|ids|entree|entrée|lot$", re.IGNORECASE)
_DEPTH = 12  # names followed one after another
Function = ast.FunctionDef | ast.AsyncFunctionDef
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Binding:
    """A name gets a value at a place; None when the value cannot be told."""

    place: Place
    value: ast.expr | None
    node: ast.AST
    over: ast.expr | None = None  # what a loop runs over, for the name it binds


@dataclass(frozen=True, slots=True)
class Call:
    """A call with the dotted name of what is called, import aliases resolved; `last` is its last part."""

    node: ast.Call
    name: str
    scope: ast.AST
    keywords: Mapping[str, ast.expr]
    open: bool  # keywords that cannot be told: **settings

    @property
    def last(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def owner(self) -> str:
        """The part before the last: the class of `AutoTokenizer.from_pretrained`."""
        return self.name.rpartition(".")[0].rpartition(".")[2]

    def argument(self, name: str, position: int) -> ast.expr | None:
        if name in self.keywords:
            return self.keywords[name]
        if position < len(self.node.args) and not isinstance(self.node.args[position], ast.Starred):
            return self.node.args[position]
        return None


def start(node: ast.AST) -> Place:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def end(node: ast.AST) -> Place:
    return getattr(node, "end_lineno", None) or 0, getattr(node, "end_col_offset", None) or 0


@dataclass(frozen=True, eq=False)
class Facts:
    """One script. `whole` is False when some of it could not be read."""

    tree: ast.Module
    whole: bool
    parents: Mapping[ast.AST, ast.AST]
    nodes: tuple[ast.AST, ...]  # in reading order
    bindings: Mapping[ast.AST, Mapping[str, list[Binding]]]  # by the node that opens the scope
    aliases: Mapping[str, str]

    @cached_property
    def functions(self) -> dict[str, Function]:
        return {node.name: node for node in self.nodes if isinstance(node, _FUNCTIONS)}

    @cached_property
    def uses(self) -> dict[tuple[ast.AST, str], list[ast.Name]]:
        """Where each name stands, by the scope it stands in."""
        found: dict[tuple[ast.AST, str], list[ast.Name]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Name):
                found.setdefault((self.scope_of(node), node.id), []).append(node)
        return found

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        return tuple(self._call(node) for node in self.nodes if isinstance(node, ast.Call))

    @cached_property
    def call_of(self) -> dict[ast.AST, Call]:
        return {call.node: call for call in self.calls}

    @cached_property
    def strings(self) -> tuple[ast.Constant, ...]:
        """Every text in the script but its docstrings."""
        return tuple(
            node
            for node in self.nodes
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and not isinstance(self.parents[node], ast.Expr)
        )

    def _call(self, node: ast.Call) -> Call:
        keywords: dict[str, ast.expr] = {}
        unknown = False
        for keyword in node.keywords:
            if keyword.arg is not None:
                keywords[keyword.arg] = keyword.value
                continue
            entries = self.entries(keyword.value)
            unknown = unknown or (entries is None and not self._is_encoding(keyword.value))
            keywords.update(entries or {})
        return Call(node, self.name_of(node.func), self.scope_of(node), keywords, unknown)

    def _is_encoding(self, value: ast.expr) -> bool:
        """`**inputs` hands over ids and their mask, not settings."""
        made = self.follow(value)
        if isinstance(made, ast.Call):
            return self.name_of(made.func) not in ("vars", "dict", "asdict")
        return bool(_ENCODING.search(ast.unparse(made)))

    def entries(self, value: ast.expr) -> dict[str, ast.expr] | None:
        """The entries of a mapping written out as `{...}` or `dict(...)`, None for any other."""
        value = self.follow(value)
        if isinstance(value, ast.Dict):
            found = {}
            for key, item in zip(value.keys, value.values, strict=True):
                if not isinstance(key, ast.Constant):
                    return None
                found[str(key.value)] = item
            return found
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
            if value.args or any(keyword.arg is None for keyword in value.keywords):
                return None
            return {str(keyword.arg): keyword.value for keyword in value.keywords}
        return None

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """What the node stands in, from the inside out."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def scope_of(self, node: ast.AST) -> ast.AST:
        """The function, class or module whose names the node sees first."""
        return next((above for above in self.above(node) if isinstance(above, _SCOPES)), self.tree)

    def statement_of(self, node: ast.AST) -> ast.AST:
        return next((above for above in (node, *self.above(node)) if isinstance(above, ast.stmt)), node)

    def named(self, *names: str) -> Iterator[Call]:
        """Calls whose last name is one of these, in reading order."""
        return (call for call in self.calls if call.last in names)

    def name_of(self, node: ast.expr) -> str:
        """`transformers.Trainer`, `tokenizer.pad`, `?.backward` for what is called on an expression."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        root = self.aliases.get(node.id, node.id) if isinstance(node, ast.Name) else "?"
        return ".".join([root, *reversed(parts)])

    def follow(self, node: ast.expr, depth: int = _DEPTH) -> ast.expr:
        """The expression that gave the value, as far as it can be told; the node itself otherwise."""
        while depth > 0:
            depth -= 1
            given = self._given(node, depth)
            if given is None or given is node:
                return node
            node = given
        return node

    def _given(self, node: ast.expr, depth: int) -> ast.expr | None:
        match node:
            case ast.Name():
                binding = self.binding(node.id, node)
                return binding.value if binding else self._passed(node)
            case ast.Attribute(value=ast.Name(id="self")):
                binding = self.binding(f"self.{node.attr}", node)
                return binding.value if binding else None
            case ast.NamedExpr() | ast.Await():
                return node.value
            case ast.Call(func=ast.Name(id=name)) if name in self.functions:
                return self._returned(self.functions[name])
            case ast.Subscript(value=value, slice=ast.Constant(value=int(place))):
                whole = self.follow(value, depth)
                if isinstance(whole, ast.Tuple | ast.List) and -len(whole.elts) <= place < len(whole.elts):
                    return whole.elts[place]
        return None

    def binding(self, name: str, node: ast.AST) -> Binding | None:
        """The assignment that the node sees under this name."""
        inside = True  # still in the scope where the node runs, so only earlier assignments count
        for above in self.above(node):
            known = self.bindings.get(above, {}).get(name)
            own_names = not isinstance(above, ast.ClassDef) or inside or name.startswith("self.")
            if known and own_names:
                if not inside or name.startswith("self."):
                    return known[-1]
                earlier = bisect_right(known, start(node), key=lambda binding: binding.place)
                return known[earlier - 1] if earlier else None
            if isinstance(above, (*_FUNCTIONS, ast.Lambda)):
                if name in parameters(above):
                    return None
                inside = False
        return None

    def _passed(self, node: ast.Name) -> ast.expr | None:
        """The argument behind a parameter of a function that is called in one place."""
        function = next((above for above in self.above(node) if isinstance(above, _FUNCTIONS)), None)
        if function is None or node.id not in (names := parameters(function)):
            return None
        sites = self.sites(function)
        if len(sites) != 1 or isinstance(self.parents.get(function), ast.ClassDef):
            return None
        site = sites[0]
        for keyword in site.keywords:
            if keyword.arg == node.id:
                return keyword.value
        place = names.index(node.id)
        if place < len(site.args) and not any(isinstance(argument, ast.Starred) for argument in site.args):
            return site.args[place]
        return defaults(function).get(node.id)

    def sites(self, function: Function) -> list[ast.Call]:
        """Where the function is called by its name."""
        return self._sites.get(function.name, [])

    @cached_property
    def _sites(self) -> dict[str, list[ast.Call]]:
        found: dict[str, list[ast.Call]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.setdefault(node.func.id, []).append(node)
        return found

    def _returned(self, function: Function) -> ast.expr | None:
        returns = self.returns(function)
        return returns[0] if len(returns) == 1 else None

    def returns(self, function: Function) -> list[ast.expr]:
        return self._returns.get(function, [])

    @cached_property
    def _returns(self) -> dict[ast.AST, list[ast.expr]]:
        found: dict[ast.AST, list[ast.expr]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Return) and node.value is not None:
                found.setdefault(self.scope_of(node), []).append(node.value)
        return found

    def constant(self, node: ast.expr | None) -> object:
        """The text, number or truth value behind an expression; None when it cannot be told."""
        if node is None:
            return None
        node = self.follow(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            value = node.operand.value
            return -value if isinstance(value, int | float) else None
        return node.value if isinstance(node, ast.Constant) else None


def parameters(function: ast.AST) -> list[str]:
    if not isinstance(function, (*_FUNCTIONS, ast.Lambda)):
        return []
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in (*every, arguments.vararg, arguments.kwarg) if argument is not None]


def defaults(function: Function) -> dict[str, ast.expr]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    count = len(arguments.defaults)
    found = dict(zip([a.arg for a in positional[len(positional) - count :]], arguments.defaults, strict=True))
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return found | {argument.arg: value for argument, value in named if value is not None}


def gather(tree: ast.Module, whole: bool) -> Facts:
    parents: dict[ast.AST, ast.AST] = {}
    nodes = list(ast.walk(tree))
    for node in nodes:
        for child in ast.iter_child_nodes(node):
            parents[child] = node
    nodes.sort(key=start)
    facts = Facts(tree, whole, parents, tuple(nodes), {}, _aliases(nodes))
    bindings: dict[ast.AST, dict[str, list[Binding]]] = {}
    for node in nodes:
        for scope, name, binding in _bound(facts, node, parents):
            bindings.setdefault(scope, {}).setdefault(name, []).append(binding)
    for names in bindings.values():
        for known in names.values():
            known.sort(key=lambda binding: binding.place)
    return Facts(tree, whole, parents, tuple(nodes), bindings, facts.aliases)


def _aliases(nodes: list[ast.AST]) -> dict[str, str]:
    aliases = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for name in node.names:
                aliases[name.asname or name.name.partition(".")[0]] = (
                    name.name if name.asname else name.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                aliases[name.asname or name.name] = f"{node.module or ''}.{name.name}"
    return aliases


def _bound(facts: Facts, node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[tuple[ast.AST, str, Binding]]:
    """The names that this node gives a value to, and the scope they belong to."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _targets(facts, target, value, node, parents)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            yield from _targets(facts, target, value, node, parents)
        case ast.NamedExpr(target=target, value=value):
            yield from _targets(facts, target, value, node, parents)
        case ast.AugAssign(target=target):
            yield from _targets(facts, target, None, node, parents)
        case ast.For(target=target, iter=over) | ast.AsyncFor(target=target, iter=over):
            for name, _ in _names(target, None, parents):
                yield facts.scope_of(node), name, Binding(start(over), None, node, over)
        case ast.comprehension(target=target, iter=over):
            for name, _ in _names(target, None, parents):
                yield parents[node], name, Binding((0, 0), None, node, over)
        case ast.withitem(optional_vars=ast.expr() as target, context_expr=value):
            yield from _targets(facts, target, value, node, parents)


def _targets(
    facts: Facts, target: ast.expr, value: ast.expr | None, node: ast.AST, parents: dict[ast.AST, ast.AST]
) -> Iterator[tuple[ast.AST, str, Binding]]:
    after = end(node) if hasattr(node, "end_lineno") else end(target)
    for name, given in _names(target, value, parents):
        scope = facts.scope_of(node)
        if name.startswith("self."):
            scope = next((above for above in facts.above(node) if isinstance(above, ast.ClassDef)), scope)
        elif isinstance(scope, _FUNCTIONS) and any(isinstance(s, ast.Global) and name in s.names for s in scope.body):
            scope = facts.tree
        yield scope, name, Binding(after, given, node)


def _names(
    target: ast.expr, value: ast.expr | None, parents: dict[ast.AST, ast.AST]
) -> Iterator[tuple[str, ast.expr | None]]:
    """The names in a target and the part of the value that each gets; an unpacked call is subscripted."""
    match target:
        case ast.Name(id=name):
            yield name, value
        case ast.Attribute(value=ast.Name() | ast.Attribute()):
            yield ast.unparse(target), value
        case ast.Starred(value=inner):
            yield from _names(inner, None, parents)
        case ast.Tuple(elts=elts) | ast.List(elts=elts):
            plain = not any(isinstance(element, ast.Starred) for element in elts)
            for place, element in enumerate(elts):
                part: ast.expr | None = None
                if plain and isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(elts):
                    part = value.elts[place]
                elif plain and isinstance(value, ast.Call):
                    part = ast.copy_location(ast.Subscript(value, ast.Constant(place), ast.Load()), value)
                    parents[part] = parents[value]
                yield from _names(element, part, parents)
