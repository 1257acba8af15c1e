"""D707, D709, D715: how a script asks the model, and whether it looks at what it answers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from plume.checks.scripts.facts import Call, Facts, start
from plume.checks.scripts.rules import RELATED, Found, rule
from plume.checks.scripts.subjects import (
    generations,
    is_seq2seq,
    model_names,
    trainers,
    training,
)
from plume.checks.scripts.texts import Hole, Prompt, Text, holes, literal, prompts, trained_texts

_HARMLESS = {"temperature": (None, 0, 1), "top_p": (None, 1), "top_k": (None, 0, 50), "min_p": (None,)}
_OWN_SAMPLING = re.compile(r"instruct|chat|-it\b|zephyr", re.IGNORECASE)


@rule("D707", "error")
def asked_otherwise_than_trained(facts: Facts) -> Iterator[Found]:
    rows = trained_texts(facts)
    chat = [call for call in facts.named("apply_chat_template") if not _asks(facts, call)]
    for prompt in prompts(facts):
        if prompt.chat is not None:
            yield from _without_opening(facts, prompt)
        elif rows and not any(_opens(text, prompt.text) for _, text in rows) and _is_known(facts, rows, prompt.text):
            node, text = rows[0]
            yield Found(
                prompt.node,
                f"the model is asked {_shown(prompt.text)}, but was trained on {_shown(text)} (line {RELATED})",
                "write the question exactly as in the training rows, up to where the answer begins",
                (node,),
            )
        elif chat and not rows and prompt.text and not holes(prompt.text) and "<|" not in literal(prompt.text):
            yield Found(
                prompt.node,
                f"the model is asked the bare text {_shown(prompt.text)}, but was trained through the chat template "
                f"(line {RELATED})",
                "ask through tokenizer.apply_chat_template(messages, add_generation_prompt=True)",
                (chat[0].node,),
            )


def _asks(facts: Facts, call: Call) -> bool:
    return any(prompt.chat is not None and prompt.chat.node is call.node for prompt in prompts(facts))


def _without_opening(facts: Facts, prompt: Prompt) -> Iterator[Found]:
    call = prompt.chat
    if call is None or call.open:
        return
    opening = call.argument("add_generation_prompt", 4)
    if opening is None and "continue_final_message" not in call.keywords:
        fault = "add_generation_prompt is missing"
    elif opening is not None and facts.constant(opening) is False and "continue_final_message" not in call.keywords:
        fault = "add_generation_prompt is False"
    else:
        return
    yield Found(
        call.node,
        f"{fault}: the model is asked without the marker that opens its answer, and continues the user instead",
        "pass add_generation_prompt=True when asking",
    )


def _opens(row: Text, asked: Text) -> bool:
    """Is the text asked a beginning of the row, up to one of its later holes? White space at the end is free."""
    text = "".join("\0" if isinstance(part, Hole) else part for part in asked).strip()
    pattern, seen = "", 0
    for part in row:
        if isinstance(part, str):
            pattern += re.escape(part)
            continue
        if seen and re.fullmatch(re.sub(r"(?:\\?\s)+$", "", pattern).lstrip("\\\n ") + r"\s*", text, re.DOTALL):
            return True
        if part in holes(row):
            seen += 1
            pattern += ".+?"
        else:
            pattern += r"(?:.+?)?"
    return False


def _is_known(facts: Facts, rows: Sequence[tuple[ast.AST, Text]], asked: Text) -> bool:
    """Can it be told what is asked? A bare variable could hold anything, a typed question or a raw column not."""
    open_parts = holes(asked)
    if not asked or any(part.name == "?" for part in open_parts):
        return False
    if literal(asked).strip() or not open_parts:
        return True
    columns = {hole.name for _, text in rows for hole in holes(text)}
    return all(part.typed or (part.name in columns and not _is_rewritten(facts, part.name)) for part in open_parts)


def _is_rewritten(facts: Facts, column: str) -> bool:
    """Does the script itself store something under this name?"""
    if column in {name for scope in facts.bindings.values() for name in scope}:
        return True
    return any(
        (isinstance(node, ast.Dict) and any(isinstance(k, ast.Constant) and k.value == column for k in node.keys))
        or (isinstance(node, ast.arg) and node.arg == column)
        for node in facts.nodes
    )


def _shown(text: Text) -> str:
    shown = "".join(f"{{{part.name}}}" if isinstance(part, Hole) else part for part in text)
    return repr(shown if len(shown) <= 60 else shown[:59] + "…")


@rule("D709", "warning")
def sampling_switched_off(facts: Facts) -> Iterator[Found]:
    if any(_OWN_SAMPLING.search(name) for name in model_names(facts)):
        return
    for call in _settings(facts):
        if call.open or ("do_sample" in call.keywords and facts.constant(call.keywords["do_sample"]) is not False):
            continue
        if "generation_config" in call.keywords or _samples_elsewhere(facts):
            continue
        idle = [
            name
            for name, harmless in _HARMLESS.items()
            if name in call.keywords and facts.constant(call.keywords[name]) not in harmless
        ]
        if idle:
            yield Found(
                call.node,
                f"{' and '.join(idle)} {'have' if len(idle) > 1 else 'has'} no effect: without do_sample=True the "
                "likeliest token is always taken",
                "set do_sample=True, or remove the setting",
                quote=idle[0],
            )


def _settings(facts: Facts) -> Iterator[Call]:
    yield from generations(facts)
    yield from facts.named("GenerationConfig")
    yield from (
        call for call in facts.named("pipeline") if facts.constant(call.argument("task", 0)) == "text-generation"
    )


def _samples_elsewhere(facts: Facts) -> bool:
    return any(name.endswith("generation_config.do_sample") for scope in facts.bindings.values() for name in scope)


@rule("D709", "error")
def json_made_impossible(facts: Facts) -> Iterator[Found]:
    proof = _json_answers(facts)
    if proof is None:
        return
    for call in _settings(facts):
        size = facts.constant(call.keywords.get("no_repeat_ngram_size"))
        if isinstance(size, int) and size > 0:
            yield Found(
                call.node,
                f"no_repeat_ngram_size={size} forbids the repeats that JSON needs (quotes, colons, keys): of the right "
                "answers many cannot be written at all",
                "remove no_repeat_ngram_size",
                (proof,),
                quote=f"no_repeat_ngram_size={size}",
            )


def _json_answers(facts: Facts) -> ast.AST | None:
    """A place that shows that answers are JSON: parsed after decoding, or written into the training rows."""
    for call in facts.named("loads"):
        if call.name == "json.loads" and call.node.args and _comes_from_answer(facts, call.node.args[0]):
            return call.node
    for node, text in trained_texts(facts):
        if re.search(r'\{\s*"', literal(text)) or any(
            isinstance(inner, ast.Call) and facts.call_of[inner].name == "json.dumps" for inner in ast.walk(node)
        ):
            return node
    return None


def _comes_from_answer(facts: Facts, node: ast.expr, depth: int = 8) -> bool:
    if depth <= 0:
        return False
    inner: list[ast.expr] = []
    match node:
        case ast.Name():
            given = facts.binding(node.id, node)
            inner = [given.value] if given is not None and given.value is not None else []
        case ast.Call(func=ast.Name(id=name)) if name in facts.functions:
            return any(call.scope is facts.functions[name] for call in generations(facts))
        case ast.Call(func=ast.Attribute(attr="decode" | "batch_decode")):
            return True
        case ast.Call(func=ast.Attribute(value=value), args=args):
            inner = [value, *args]
        case ast.Subscript(value=value):
            inner = [value]
    return any(_comes_from_answer(facts, one, depth - 1) for one in inner)


@rule("D709", "warning")
def length_with_the_prompt(facts: Facts) -> Iterator[Found]:
    if is_seq2seq(facts):
        return
    for call in _settings(facts):
        asked = call.last != "generate" or call.node.args or {"input_ids", "inputs", None} & _given(call)
        if asked and "max_length" in call.keywords and "max_new_tokens" not in call.keywords and not call.open:
            yield Found(
                call.node,
                "max_length counts the prompt too: a long question leaves no room for its answer",
                "use max_new_tokens",
                quote="max_length",
            )


def _given(call: Call) -> set[str | None]:
    return {keyword.arg for keyword in call.node.keywords}


@rule("D715", "warning", whole=True)
def answers_never_read(facts: Facts) -> Iterator[Found]:
    place = training(facts)
    if place is None or generations(facts):
        return
    names = {call.last for call in facts.calls} | {str(node.value) for node in facts.strings}
    names |= {keyword.arg or "" for node in facts.nodes if isinstance(node, ast.Call) for keyword in node.keywords}
    if names & {"generate", "pipeline", "simple_evaluate", "predict_with_generate", "LLM", "multinomial"}:
        return
    if any(call.last in ("GRPOTrainer", "PPOTrainer", "RewardTrainer") for call in trainers(facts)):
        return
    if any("Classification" in call.name or "Regression" in call.name for call in facts.calls):
        return
    yield Found(
        place,
        "the script trains and never reads an answer of the model: a low loss does not say that answers are right",
        "after training, generate answers to held-out questions and compare them with the expected ones",
    )


@rule("D715", "warning", whole=True)
def chance_without_seed(facts: Facts) -> Iterator[Found]:
    """Trainers seed themselves (42); what stands outside of them does not."""
    place = training(facts)
    if place is None:
        return
    for call in facts.calls:
        drawn = call.last in ("train_test_split", "random_split") or call.name in ("random.shuffle", "random.sample")
        if drawn and not _is_seeded(facts, call):
            yield _unseeded(call.node, f"{call.last} draws other rows on every run")
            return
    if not trainers(facts) and not _is_seeded(facts, None):
        shuffled = [c for c in facts.named("DataLoader") if facts.constant(c.keywords.get("shuffle")) is True]
        if shuffled:
            yield _unseeded(shuffled[0].node, "the rows come in another order on every run")


def _unseeded(node: ast.AST, what: str) -> Found:
    return Found(
        node,
        f"no seed is set before this, and {what}: results cannot be compared or repeated",
        "call transformers.set_seed(0) first, and give seed=0 to the split",
    )


def _is_seeded(facts: Facts, drawn: Call | None) -> bool:
    """Is there a seed for this call: its own, one set before it, or one in the settings of the training?"""
    seeds = ("set_seed", "manual_seed", "seed_everything", "enable_full_determinism", "seed")
    for call in facts.calls:
        late = drawn is not None and call.scope is drawn.scope and start(call.node) > start(drawn.node)
        if call.last in seeds and not late:
            return True
    if drawn is not None:
        return bool(drawn.open or drawn.keywords.keys() & {"seed", "random_state", "generator"})
    return any(call.keywords.keys() & {"seed", "random_state", "generator"} for call in facts.calls)
