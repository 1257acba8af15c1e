"""D701, D702, D706, D712: what a script trains on, and what it is measured on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from plume.checks.scripts.facts import Call, Facts
from plume.checks.scripts.rules import RELATED, Found, rule
from plume.checks.scripts.subjects import (
    HF_TRAINERS,
    is_causal,
    is_headless,
    model_class,
    tokenized,
    trainers,
)
from plume.checks.scripts.targets import collators, copies_inputs, labels, other_text


@rule("D701", "error")
def overwritten_labels(facts: Facts) -> Iterator[Found]:
    made = [
        place
        for place in labels(facts)
        if not isinstance(place.node, ast.Call) and (other_text(facts, place) or not copies_inputs(facts, place.value))
    ]
    if not made:
        return
    for collator in collators(facts):
        yield Found(
            collator.node,
            f"this collator writes its own labels from the input ids and throws away the labels made on line {RELATED}",
            "use a collator that keeps labels and pads them with -100, such as DataCollatorForSeq2Seq(tokenizer)",
            (made[0].node,),
        )


@rule("D702", "error")
def labels_of_another_text(facts: Facts) -> Iterator[Found]:
    if not is_causal(facts):
        return
    for place in labels(facts):
        if other_text(facts, place):
            yield Found(
                place.node,
                "the labels are the answer's tokens and the inputs are the question's: position by position they have "
                "nothing to do with each other",
                "tokenise question and answer as one text; labels are the same ids with -100 over the question",
            )
    for call in tokenized(facts):
        if "text_target" in call.keywords:
            yield Found(
                call.node,
                "`text_target=` makes labels from the answer alone, which only an encoder-decoder can use",
                "tokenise question and answer as one text; labels are the same ids with -100 over the question",
            )


@rule("D706", "warning")
def evaluated_on_training_rows(facts: Facts) -> Iterator[Found]:
    for call in trainers(facts):
        train, test = call.keywords.get("train_dataset"), call.keywords.get("eval_dataset")
        if train is not None and test is not None and _overlap(facts, train, test):
            yield _evaluated(test)
    loaders = [call for call in facts.named("DataLoader") if call.node.args or "dataset" in call.keywords]
    named = [(_target(facts, call), call.argument("dataset", 0)) for call in loaders]
    for name, test in named:
        if re.search(r"val|eval|test", name) and test is not None:
            for other, train in named:
                if re.search(r"train|appr|entra", other) and train is not None and _overlap(facts, train, test):
                    yield _evaluated(test)
    for call in facts.named("load_dataset"):
        files = facts.entries(call.keywords["data_files"]) if "data_files" in call.keywords else None
        if files and len({ast.dump(facts.follow(value)) for value in files.values()}) < len(files):
            yield _evaluated(call.keywords["data_files"])


def _evaluated(node: ast.AST) -> Found:
    return Found(
        node,
        "evaluation asks the rows that the model is trained on: the score shows memory, not learning",
        "hold rows out before training: dataset.train_test_split(test_size=0.1, seed=0)",
    )


def _target(facts: Facts, call: Call) -> str:
    parent = facts.parents.get(call.node)
    return ast.unparse(parent.targets[0]).lower() if isinstance(parent, ast.Assign) else ""


def _overlap(facts: Facts, train: ast.expr, test: ast.expr) -> bool:
    first, second = _written(facts, train), _written(facts, test)
    if first == second:
        return not isinstance(facts.follow(train), ast.Constant)
    taken = re.compile(re.escape(first) + r"(?:\.shuffle\([^()]*\))?(?:\.select\(range\([^()]*\)\)|\[:[^\[\]]*\])$")
    sliced = re.sub(r"(split='train)\[:[^\]']*\]'", r"\1'", second)
    return bool(taken.match(second)) or sliced == first


def _written(facts: Facts, node: ast.expr, depth: int = 8) -> str:
    """The expression with every known name replaced by what it was given."""
    node = facts.follow(node)
    if depth <= 0 or not isinstance(node, ast.Call | ast.Subscript | ast.Attribute):
        return _unique(facts, node)
    match node:
        case ast.Subscript(value=value, slice=part):
            return f"{_written(facts, value, depth - 1)}[{ast.unparse(part)}]"
        case ast.Attribute(value=value, attr=name):
            return f"{_written(facts, value, depth - 1)}.{name}"
        case ast.Call(func=function, args=args, keywords=keywords):
            given = [_written(facts, argument, depth - 1) for argument in args]
            given += [f"{keyword.arg}={_written(facts, keyword.value, depth - 1)}" for keyword in keywords]
            called = (
                f"{_written(facts, function.value, depth - 1)}.{function.attr}"
                if isinstance(function, ast.Attribute)
                else ast.unparse(function)
            )
            return f"{called}({', '.join(given)})"


def _unique(facts: Facts, node: ast.expr) -> str:
    """A name bound several times is not the same object everywhere."""
    binding = facts.binding(node.id, node) if isinstance(node, ast.Name) else None
    return ast.unparse(node) + (f"@{binding.place}" if binding is not None else "")


@rule("D712", "error")
def model_without_a_loss(facts: Facts) -> Iterator[Found]:
    for call in trainers(facts):
        name = model_class(facts, call.argument("model", 0))
        if is_headless(name):
            yield Found(
                call.node,
                f"{name} has no language-model head: it gives hidden states, and no loss can be computed",
                "load the model with AutoModelForCausalLM",
            )


@rule("D712", "error", whole=True)
def rows_without_labels(facts: Facts) -> Iterator[Found]:
    if _mentions_labels(facts) or not tokenized(facts):
        return
    for call in trainers(facts):
        collator = call.keywords.get("data_collator")
        plain = collator is None or _is_plain(facts, collator)
        if call.last in HF_TRAINERS and plain and "compute_loss_func" not in call.keywords and not call.open:
            yield Found(
                call.node,
                "the rows have no labels and this collator makes none: the model returns no loss",
                "pass data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False), or make labels",
            )
    for call in facts.named("backward"):
        owner = facts.follow(call.node.func.value) if isinstance(call.node.func, ast.Attribute) else None
        while isinstance(owner, ast.BinOp):
            owner = facts.follow(owner.left)
        if isinstance(owner, ast.Attribute) and owner.attr == "loss":
            yield Found(
                call.node,
                "the model is called without labels, so its output has no loss",
                "pass labels: model(**batch, labels=labels)",
            )


def _mentions_labels(facts: Facts) -> bool:
    wanted = ("label", "etiquette", "target", "cible")
    if any(any(word in str(node.value).lower() for word in wanted) for node in facts.strings):
        return True
    return any(
        any(word in str(getattr(node, "id", getattr(node, "arg", ""))).lower() for word in wanted)
        for node in facts.nodes
        if isinstance(node, ast.Name | ast.keyword | ast.arg)
    )


def _is_plain(facts: Facts, node: ast.expr) -> bool:
    made = facts.follow(node)
    name = facts.name_of(made.func if isinstance(made, ast.Call) else made).rpartition(".")[2]
    return name in ("default_data_collator", "DefaultDataCollator", "DataCollatorWithPadding")
