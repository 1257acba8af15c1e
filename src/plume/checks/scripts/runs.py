"""D708, D710, D717: what a script does to tokenizers, models and directories around its training."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from plume.checks.scripts.facts import Call, Facts, start
from plume.checks.scripts.rules import RELATED, Found, rule
from plume.checks.scripts.subjects import (
    ARGUMENTS,
    generations,
    origin,
    trainers,
    training,
)
from plume.checks.scripts.texts import trained_texts

_STAGE = re.compile(
    r"stage|phase|step|etape|étape|warm|pretrain|pre_train|continu|sft|dpo|round|curriculum", re.IGNORECASE
)
_NAMED_TOKENS = ("bos_token", "eos_token", "sep_token", "cls_token", "unk_token")
_EXISTING = ("<|endoftext|>", "</s>", "<s>", "<unk>")


def _added(facts: Facts) -> Iterator[tuple[Call, str, str]]:
    """Every token that the script adds: the call, the token's role, its text."""
    for call in facts.named("add_tokens", "add_special_tokens"):
        if not call.node.args:
            continue
        given = facts.follow(call.node.args[0])
        named = facts.entries(given) if call.last == "add_special_tokens" else {"tokens": given}
        for role, value in (named or {}).items():
            value = facts.follow(value)
            for item in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
                text = facts.constant(item)
                if isinstance(text, str) and text not in _EXISTING:
                    yield call, role, text


@rule("D708", "warning", whole=True)
def embeddings_not_resized(facts: Facts) -> Iterator[Found]:
    added = list(_added(facts))
    makes_model = any("Config" in call.name and "vocab_size" in call.keywords for call in facts.calls)
    if not added or training(facts) is None or makes_model or any(True for _ in facts.named("resize_token_embeddings")):
        return
    call, _, text = added[0]
    yield Found(
        call.node,
        f"{text!r} is added to the tokenizer, but the model's embeddings do not grow: its id does not exist there",
        "call model.resize_token_embeddings(len(tokenizer)) after adding tokens",
        quote=text,
    )


@rule("D708", "warning", whole=True)
def tokens_never_used(facts: Facts) -> Iterator[Found]:
    """Only where the script itself writes the rows: a data file could hold the tokens."""
    if not trained_texts(facts):
        return
    texts = [str(node.value) for node in facts.strings]
    attributes = {node.attr for node in facts.nodes if isinstance(node, ast.Attribute)}
    for call, role, text in _added(facts):
        if role == "pad_token" or sum(text in other for other in texts) > 1:
            continue
        if role in _NAMED_TOKENS and attributes & {role, f"{role}_id"}:
            continue
        if _used_by_name(facts, text):
            continue
        yield Found(
            call.node,
            f"{text!r} is added to the tokenizer and never written into a row: it stays untrained",
            "write it into the training rows and the prompt, or do not add it",
            quote=text,
        )


def _used_by_name(facts: Facts, text: str) -> bool:
    """Does a constant hold the token, and is it used in more than the place that adds it?"""
    for names in facts.bindings.values():
        for name, known in names.items():
            if any(binding.value is not None and facts.constant(binding.value) == text for binding in known):
                uses = sum(isinstance(node, ast.Name) and node.id == name for node in facts.nodes)
                if uses > 2:
                    return True
    return False


@rule("D708", "warning", whole=True)
def end_token_unknown_to_generate(facts: Facts) -> Iterator[Found]:
    """A Trainer that is given the tokenizer tells the model about a new end token; nothing else does."""
    asked = list(generations(facts))
    if not asked or any("processing_class" in call.keywords for call in trainers(facts)):
        return
    told = any("eos_token_id" in call.keywords or "stop_strings" in call.keywords or call.open for call in asked)
    told = told or any(name.endswith("config.eos_token_id") for scope in facts.bindings.values() for name in scope)
    told = told or any("eos_token_id" in call.keywords for call in facts.calls)
    if told:
        return
    for call, role, text in _added(facts):
        if role == "eos_token":
            yield Found(
                asked[0].node,
                f"the end token is now {text!r} (line {RELATED}), but generate() still waits for the old one",
                "set model.generation_config.eos_token_id = tokenizer.eos_token_id",
                (call.node,),
            )


@rule("D710", "error")
def trained_twice(facts: Facts) -> Iterator[Found]:
    made = [call for call in trainers(facts) if _is_trained(facts, call) and not _is_stage(facts, call)]
    first: dict[tuple[str, ast.AST], Call] = {}
    for call in made:
        model = origin(facts, call.argument("model", 0))
        if not isinstance(model, ast.Call):
            continue
        loop = next((above for above in facts.above(call.node) if isinstance(above, ast.For)), None)
        if loop is not None and loop not in facts.above(model) and facts.scope_of(model) is call.scope:
            yield _again(call, model, "each pass of the loop trains")
        elif (call.last, model) in first:
            yield _again(call, first[call.last, model].node, "this trainer goes on training")
        else:
            first[call.last, model] = call


def _again(call: Call, earlier: ast.AST, what: str) -> Found:
    return Found(
        call.node,
        f"{what} the model of line {RELATED} where training left it, not the one that was loaded: the runs are not "
        "independent",
        "load the model anew for each trainer, or use one trainer",
        (earlier,),
    )


def _is_trained(facts: Facts, trainer: Call) -> bool:
    """A trainer made only to evaluate or predict changes nothing."""
    for call in facts.named("train"):
        function = call.node.func
        if isinstance(function, ast.Attribute) and facts.follow(function.value) is trainer.node:
            return True
    return False


def _is_stage(facts: Facts, call: Call) -> bool:
    """Training in stages goes on with one model on purpose, and says so in its names."""
    parent = facts.parents.get(call.node)
    name = ast.unparse(parent.targets[0]) if isinstance(parent, ast.Assign) else ""
    return bool(_STAGE.search(f"{name} {_directory(facts, call) or ''}"))


def _directory(facts: Facts, trainer: Call) -> str | None:
    arguments = trainer.argument("args", 1)
    made = facts.follow(arguments) if arguments is not None else None
    call = facts.call_of.get(made) if made is not None else None
    value = facts.constant(call.argument("output_dir", 0)) if call is not None else None
    return value if isinstance(value, str) else None


@rule("D717", "warning")
def directory_used_twice(facts: Facts) -> Iterator[Found]:
    first: dict[str, Call] = {}
    for call in facts.named(*ARGUMENTS):
        value = facts.constant(call.argument("output_dir", 0))
        if not isinstance(value, str):
            continue
        loop = next((above for above in facts.above(call.node) if isinstance(above, ast.For)), None)
        if value in first or loop is not None:
            earlier = first[value].node if value in first else call.node
            yield Found(
                call.node,
                f"{value!r} is the output directory of more than one run: the later overwrites the checkpoints of the "
                "earlier",
                "give each run its own directory",
                (earlier,) if earlier is not call.node else (),
                quote=value,
            )
        first.setdefault(value, call)


@rule("D717", "warning", whole=True)
def loaded_but_never_saved(facts: Facts) -> Iterator[Found]:
    begun = training(facts)
    outputs = {
        _plain(value): call
        for call in facts.named(*ARGUMENTS)
        if isinstance(value := facts.constant(call.argument("output_dir", 0)), str)
    }
    if begun is None or any(True for _ in facts.named("save_model", "save_pretrained", "push_to_hub", "save")):
        return
    for call in facts.named("from_pretrained", "pipeline"):
        name = "model" if call.last == "pipeline" else "pretrained_model_name_or_path"
        value = facts.constant(call.argument(name, 1 if call.last == "pipeline" else 0))
        if isinstance(value, str) and _plain(value) in outputs and start(call.node) > start(begun):
            yield Found(
                call.node,
                f"nothing was saved in {value!r}: a Trainer writes only checkpoint-N directories into it",
                f"call trainer.save_model({value!r}) after training",
                (outputs[_plain(value)].node,),
                quote=value,
            )
            return


def _plain(path: str) -> str:
    return path.removeprefix("./").rstrip("/")
