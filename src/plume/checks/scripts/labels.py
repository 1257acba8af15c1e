"""D701–D706, D712, D713: what a script trains on, and what of it the loss sees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from plume.checks.scripts.facts import Call, Facts
from plume.checks.scripts.rules import RELATED, Found, rule
from plume.checks.scripts.subjects import (
    HF_TRAINERS,
    Labels,
    asks_padding,
    collators,
    generates,
    ids_source,
    is_causal,
    is_headless,
    is_seq2seq,
    labels,
    loaded_tokenizers,
    masks,
    model_class,
    model_names,
    tokenized,
    trainers,
    training,
)

_WITHOUT_PAD = re.compile(
    r"^(?:openai-community/)?(?:distil)?gpt2(?:-medium|-large|-xl)?$|^distilbert/distilgpt2$"
    r"|^EleutherAI/(?:gpt-|pythia)|^(?:meta-llama|huggyllama)/|^mistralai/Mistral-7B|^microsoft/(?:DialoGPT|phi-[12])"
    r"|^tiiuae/falcon-(?:7b|40b)|^cerebras/Cerebras-GPT"
)
_PADDING_COLLATORS = ("DataCollatorWithPadding", "DataCollatorForLanguageModeling", "DataCollatorForSeq2Seq")
_SHORT = 64  # tokens: padding to so little costs little


@rule("D701", "error")
def overwritten_labels(facts: Facts) -> Iterator[Found]:
    made = [place for place in labels(facts) if ids_source(facts, place.value) is None or _pair(facts, place)]
    made = [place for place in made if not isinstance(place.node, ast.Call)]
    if not made:
        return
    for collator in collators(facts):
        yield Found(
            collator.node,
            f"this collator writes its own labels from the input ids and throws away the labels made on line {RELATED}",
            "use a collator that keeps labels and pads them with -100, such as DataCollatorForSeq2Seq(tokenizer)",
            (made[0].node,),
        )


def _pair(facts: Facts, place: Labels) -> tuple[Call, Call] | None:
    """The tokenizer calls behind labels and inputs, when they are two calls on texts that share nothing."""
    of_labels, of_inputs = ids_source(facts, place.value), ids_source(facts, place.inputs)
    if of_labels is None or of_inputs is None or of_labels.node is of_inputs.node:
        return None
    first, second = of_labels.argument("text", 0), of_inputs.argument("text", 0)
    if first is None:
        first = of_labels.keywords.get("text_target")
    if first is None or second is None:
        return None
    return (of_labels, of_inputs) if _leaves(facts, first).isdisjoint(_leaves(facts, second)) else None


def _leaves(facts: Facts, node: ast.expr, depth: int = 6) -> set[str]:
    """The columns and variables that a text is made of."""
    node = facts.follow(node)
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Subscript) and isinstance(inner.slice, ast.Constant):
            found.add(str(inner.slice.value))
        elif isinstance(inner, ast.Attribute) and inner.attr not in ("eos_token", "bos_token"):
            found.add(inner.attr)
        elif isinstance(inner, ast.Name) and depth > 0:
            given = facts.follow(inner)
            if given is not inner:
                found |= _leaves(facts, given, depth - 1)
            elif not isinstance(facts.parents.get(inner), ast.Subscript | ast.Attribute | ast.Call):
                found.add(inner.id)
    return found


@rule("D702", "error")
def labels_of_another_text(facts: Facts) -> Iterator[Found]:
    if not is_causal(facts):
        return
    for place in labels(facts):
        if _pair(facts, place):
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


@rule("D703", "error")
def end_token_masked(facts: Facts) -> Iterator[Found]:
    pads = _pads(facts)
    if not pads or not _is_end(facts, pads[-1][1]):
        return
    place, _ = pads[-1]
    if isinstance(facts.parents.get(place), ast.If) and not any(_WITHOUT_PAD.match(n) for n in model_names(facts)):
        return
    masking: list[ast.AST] = [call.node for call in collators(facts) if trainers(facts) or training(facts)]
    masking += _masked_by_pad(facts)
    if masking:
        yield Found(
            place,
            f"padding and end are one token here, and line {RELATED} takes the padding out of the loss: the end is "
            "never learnt, answers run on",
            'give padding its own token: tokenizer.add_special_tokens({"pad_token": "<pad>"}), then '
            "model.resize_token_embeddings(len(tokenizer))",
            (masking[0],),
        )


def _pads(facts: Facts) -> list[tuple[ast.AST, ast.expr]]:
    """Every place that sets the padding token, and what to."""
    found: list[tuple[ast.AST, ast.expr]] = []
    for node in facts.nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    pads = isinstance(target, ast.Attribute) and target.attr in ("pad_token", "pad_token_id")
                    if pads and "config" not in ast.unparse(target):
                        found.append((node, value))
            case ast.Call():
                call = facts.call_of[node]
                if call.last == "add_special_tokens" and node.args:
                    entries = facts.entries(node.args[0]) or {}
                    found += [(node, entries["pad_token"])] if "pad_token" in entries else []
                elif "pad_token" in call.keywords:
                    found.append((node, call.keywords["pad_token"]))
    return found


def _is_end(facts: Facts, value: ast.expr) -> bool:
    value = facts.follow(value)
    if isinstance(value, ast.Attribute):
        return value.attr in ("eos_token", "eos_token_id")
    return isinstance(value, ast.Constant) and value.value in ("<|endoftext|>", "</s>", 50256)


def _masked_by_pad(facts: Facts) -> list[ast.AST]:
    """Labels set to -100 where the id is the padding id, however that is written."""
    found: list[ast.AST] = []
    for node in masks(facts):
        statement = facts.statement_of(node)
        for inner in ast.walk(statement):
            if isinstance(inner, ast.Compare) and any(
                _is_pad_id(facts, side) for side in (inner.left, *inner.comparators)
            ):
                found.append(statement)
                break
        if _is_pad_id(facts, node):
            found.append(statement)
    return found


def _is_pad_id(facts: Facts, node: ast.AST) -> bool:
    if not isinstance(node, ast.expr):
        return False
    return any(isinstance(form, ast.Attribute) and form.attr == "pad_token_id" for form in (node, facts.follow(node)))


@rule("D704", "error", whole=True)
def padding_in_labels(facts: Facts) -> Iterator[Found]:
    if masks(facts) or collators(facts) or is_seq2seq(facts) or training(facts) is None:
        return
    padded = [call for call in tokenized(facts) if asks_padding(facts, call) and not generates(facts, call.scope)]
    padded += [call for call in facts.named("pad") if not generates(facts, call.scope)]
    padded += list(facts.named("pad_sequence"))
    if not padded:
        return
    for place in labels(facts):
        if _copies_inputs(facts, place.value) and not _pair(facts, place):
            yield Found(
                place.node,
                "the labels are the padded input ids, padding included: the loss counts tokens that mean nothing and "
                "looks better than it is",
                "set labels to -100 where attention_mask is 0",
                (padded[0].node,),
            )
            return


def _copies_inputs(facts: Facts, value: ast.expr) -> bool:
    if ids_source(facts, value) is not None:
        return True
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        if value.func.attr not in ("copy", "clone", "detach", "to", "long"):
            return False
        value = value.func.value
    match facts.follow(value):
        case ast.Subscript(slice=ast.Constant(value="input_ids")) | ast.Attribute(attr="input_ids"):
            return True
        case ast.Name(id="input_ids" | "ids" | "inputs"):
            return True
        case ast.Call(func=ast.Attribute(value=inner, attr="to")):
            return _copies_inputs(facts, inner)
    return False


@rule("D705", "warning")
def padded_to_the_limit(facts: Facts) -> Iterator[Found]:
    if training(facts) is None:
        return
    for call in tokenized(facts):
        if facts.constant(call.keywords.get("padding")) != "max_length" or generates(facts, call.scope):
            continue
        length = facts.constant(call.keywords.get("max_length"))
        if isinstance(length, int) and length <= _SHORT:
            continue
        tokens = f"{length} tokens" if isinstance(length, int) else "the model's whole length"
        yield Found(
            call.node,
            f"every row is padded to {tokens}, however short it is: the model spends its time on padding",
            "leave padding to the collator, which pads to the longest row of the batch",
            quote='padding="max_length"',
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


@rule("D713", "error", whole=True)
def no_padding_token(facts: Facts) -> Iterator[Found]:
    if _pads(facts) or any(call.last in ("SFTTrainer", "DPOTrainer") for call in trainers(facts)):
        return
    without = [
        call
        for call in loaded_tokenizers(facts)
        if isinstance(name := facts.constant(call.argument("pretrained_model_name_or_path", 0)), str)
        and _WITHOUT_PAD.match(name)
    ]
    if not without:
        return
    asking = [call for call in tokenized(facts) if asks_padding(facts, call)]
    asking += [call for call in facts.named(*_PADDING_COLLATORS) if not call.name.startswith("trl")]
    if asking:
        name = facts.constant(without[0].argument("pretrained_model_name_or_path", 0))
        yield Found(
            min(asking, key=lambda call: call.node.lineno).node,
            f"padding is asked for, and the tokenizer of {name} has no padding token: this stops with an error",
            'tokenizer.add_special_tokens({"pad_token": "<pad>"}), then model.resize_token_embeddings(len(tokenizer))',
            (without[0].node,),
        )
