"""D703, D704, D705, D713: the padding token, and what it does to the loss."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from plume.checks.scripts.facts import Facts
from plume.checks.scripts.rules import RELATED, Found, rule
from plume.checks.scripts.subjects import (
    asks_padding,
    generates,
    is_seq2seq,
    loaded_tokenizers,
    model_names,
    tokenized,
    trainers,
    training,
)
from plume.checks.scripts.targets import Labels, collators, copies_inputs, labels, masks, other_text

_WITHOUT_PAD = re.compile(
    r"^(?:openai-community/)?(?:distil)?gpt2(?:-medium|-large|-xl)?$|^distilbert/distilgpt2$"
    r"|^EleutherAI/(?:gpt-|pythia)|^(?:meta-llama|huggyllama)/|^mistralai/Mistral-7B|^microsoft/(?:DialoGPT|phi-[12])"
    r"|^tiiuae/falcon-(?:7b|40b)|^cerebras/Cerebras-GPT"
)
_PADDING_COLLATORS = ("DataCollatorWithPadding", "DataCollatorForLanguageModeling", "DataCollatorForSeq2Seq")
_SHORT = 64  # tokens: padding to so little costs little


@rule("D703", "error")
def end_token_masked(facts: Facts) -> Iterator[Found]:
    pads = _pads(facts)
    if not pads or not _is_end(facts, pads[-1][1]):
        return
    place, _ = pads[-1]
    if isinstance(facts.parents.get(place), ast.If) and not any(_WITHOUT_PAD.match(n) for n in model_names(facts)):
        return
    if any("return_overflowing_tokens" in call.keywords for call in facts.calls) and not _writes_end(facts):
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


def _writes_end(facts: Facts) -> bool:
    """Does any row get an end token, rather than being cut into blocks without one?"""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("eos_token", "eos_token_id")
        and not isinstance(facts.parents[node], ast.Assign | ast.keyword)
        for node in facts.nodes
    )


def _pads(facts: Facts) -> list[tuple[ast.AST, ast.expr]]:
    """Every place that sets the padding token, and what to."""
    found: list[tuple[ast.AST, ast.expr]] = []
    for node in facts.nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    pads = isinstance(target, ast.Attribute) and target.attr in ("pad_token", "pad_token_id")
                    named = isinstance(target, ast.Subscript) and facts.constant(target.slice) == "pad_token"
                    if named or (pads and "config" not in ast.unparse(target)):
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
        if (copies_inputs(facts, place.value) or _is_inputs(facts, place)) and not other_text(facts, place):
            yield Found(
                place.node,
                "the labels are the padded input ids, padding included: the loss counts tokens that mean nothing and "
                "looks better than it is",
                "set labels to -100 where attention_mask is 0",
                (padded[0].node,),
            )
            return


def _is_inputs(facts: Facts, place: Labels) -> bool:
    """A model that is given one expression both as inputs and as labels."""
    if place.inputs is None or not isinstance(place.node, ast.Call):
        return False
    return ast.dump(facts.follow(place.inputs)) == ast.dump(facts.follow(place.value))


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
        given = "one fixed length" if "max_length" in call.keywords else "the model's whole length"
        tokens = f"{length} tokens" if isinstance(length, int) else given
        yield Found(
            call.node,
            f"every row is padded to {tokens}, however short it is: the model spends its time on padding",
            "leave padding to the collator, which pads to the longest row of the batch",
            quote='padding="max_length"',
        )


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
    blocks = any(True for _ in facts.named("TextDataset"))  # all of one length: nothing is padded
    asking += [
        call for call in facts.named(*_PADDING_COLLATORS if not blocks else ()) if not call.name.startswith("trl")
    ]
    if asking:
        name = facts.constant(without[0].argument("pretrained_model_name_or_path", 0))
        yield Found(
            min(asking, key=lambda call: call.node.lineno).node,
            f"padding is asked for, and the tokenizer of {name} has no padding token: this stops with an error",
            'tokenizer.add_special_tokens({"pad_token": "<pad>"}), then model.resize_token_embeddings(len(tokenizer))',
            (without[0].node,),
        )
