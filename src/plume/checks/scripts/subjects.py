"""The things a training script works with, found among its facts: tokenizers, models, trainers, labels, answers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache

from plume.checks.scripts.facts import Call, Facts, Function

HF_TRAINERS = ("Trainer", "Seq2SeqTrainer")
TRL_TRAINERS = (
    "SFTTrainer", "DPOTrainer", "ORPOTrainer", "KTOTrainer", "RewardTrainer", "GRPOTrainer", "PPOTrainer",
)  # fmt: skip
ARGUMENTS = ("TrainingArguments", "Seq2SeqTrainingArguments", "SFTConfig", "DPOConfig", "ORPOConfig", "KTOConfig")
_ENCODERS = ("encode", "encode_plus", "batch_encode_plus", "__call__")
_TOKENIZER_NAME = re.compile(r"tok(?:en(?:i[sz](?:er|eur)))?$", re.IGNORECASE)
_SEQ2SEQ = re.compile(
    r"ForSeq2SeqLM|Seq2SeqTrain|T5|Bart|Marian|Pegasus|EncoderDecoder|M2M100|ConditionalGeneration|LEDFor"
)
_CAUSAL = re.compile(r"CausalLM|LMHeadModel|SFTTrainer|mlm=False|ForCausalLM")
_BARE = re.compile(
    r"^(?:AutoModel|(?:GPT2|GPTNeo|GPTNeoX|GPTJ|Llama|Mistral|Qwen2|Qwen3|OPT|Bloom|Phi|Phi3|Gemma)Model)$"
)
_SAME_OBJECT = ("to", "cuda", "cpu", "half", "float", "eval", "train", "bfloat16", "requires_grad_")


def is_tokenizer(facts: Facts, node: ast.expr) -> bool:
    """By where it comes from, and where that cannot be told by its name."""
    origin = facts.follow(node)
    if isinstance(origin, ast.Call):
        call = facts.call_of.get(origin)
        return call is not None and call.last == "from_pretrained" and bool(re.search("Tokeni[sz]er", call.owner))
    return isinstance(origin, ast.Name | ast.Attribute) and bool(_TOKENIZER_NAME.search(ast.unparse(origin)))


@lru_cache(maxsize=2)
def tokenized(facts: Facts) -> tuple[Call, ...]:
    """Calls that turn text into ids."""
    return tuple(call for call in facts.calls if _encodes(facts, call))


@lru_cache(maxsize=2)
def encodings(facts: Facts) -> frozenset[ast.AST]:
    return frozenset(call.node for call in tokenized(facts))


def _encodes(facts: Facts, call: Call) -> bool:
    function = call.node.func
    if isinstance(function, ast.Attribute) and call.last in _ENCODERS:
        return is_tokenizer(facts, function.value)
    return isinstance(function, ast.Name | ast.Attribute) and is_tokenizer(facts, function)


def loaded_tokenizers(facts: Facts) -> Iterator[Call]:
    return (call for call in facts.named("from_pretrained") if re.search("Tokeni[sz]er", call.owner))


@lru_cache(maxsize=2)
def trainers(facts: Facts) -> tuple[Call, ...]:
    """Trainers made in the script, the script's own subclasses included."""
    return tuple(facts.named(*HF_TRAINERS, *TRL_TRAINERS, *own_trainers(facts)))


@lru_cache(maxsize=2)
def own_trainers(facts: Facts) -> tuple[str, ...]:
    return tuple(
        node.name
        for node in facts.nodes
        if isinstance(node, ast.ClassDef)
        and any(facts.name_of(base).rpartition(".")[2] in (*HF_TRAINERS, *TRL_TRAINERS) for base in node.bases)
    )


def is_trl(call: Call) -> bool:
    return call.last in TRL_TRAINERS


def training(facts: Facts) -> ast.AST | None:
    """Where the script starts to train: `.train()` on a trainer, or the first backward pass."""
    for call in facts.calls:
        function = call.node.func
        if not isinstance(function, ast.Attribute):
            continue
        if call.last == "backward":
            return call.node
        if call.last in ("train", "fit"):
            made = facts.follow(function.value)
            if isinstance(made, ast.Call) and any(made is trainer.node for trainer in trainers(facts)):
                return call.node
            if (trainers(facts) or call.last == "fit") and "train" in ast.unparse(function.value).lower():
                return call.node
    return None


def origin(facts: Facts, node: ast.expr | None) -> ast.expr | None:
    """The expression that made an object: through `.to(device)`, `get_peft_model(model, …)` and the like."""
    for _ in range(8):
        if node is None:
            return None
        node = facts.follow(node)
        if not isinstance(node, ast.Call):
            return node
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in _SAME_OBJECT:
            node = function.value
        elif facts.name_of(function).rpartition(".")[2] in ("get_peft_model", "prepare_model_for_kbit_training"):
            node = node.args[0] if node.args else None
        else:
            return node
    return node


def model_class(facts: Facts, node: ast.expr | None) -> str | None:
    """The class behind a model object: `AutoModel` for `AutoModel.from_pretrained(…).to("cuda")`."""
    made = origin(facts, node)
    call = facts.call_of.get(made) if made is not None else None
    if call is None:
        return None
    return call.owner if call.last in ("from_pretrained", "from_config") else call.last


def is_headless(name: str | None) -> bool:
    return bool(name and _BARE.match(name))


def is_seq2seq(facts: Facts) -> bool:
    return any(_SEQ2SEQ.search(call.name) for call in facts.calls)


def is_causal(facts: Facts) -> bool:
    return not is_seq2seq(facts) and any(
        _CAUSAL.search(call.name) or facts.constant(call.keywords.get("mlm")) is False for call in facts.calls
    )


def model_names(facts: Facts) -> set[str]:
    """Names under which models and tokenizers are loaded, where they can be told."""
    found = set()
    for call in facts.named("from_pretrained"):
        name = facts.constant(call.argument("pretrained_model_name_or_path", 0))
        if isinstance(name, str):
            found.add(name)
    return found


def asks_padding(facts: Facts, call: Call) -> bool:
    return facts.constant(call.keywords.get("padding")) in (True, "longest", "max_length") or (
        facts.constant(call.keywords.get("pad_to_max_length")) is True
    )


@lru_cache(maxsize=2)
def generations(facts: Facts) -> tuple[Call, ...]:
    """Calls of a model's `generate`, and of text-generation pipelines."""
    return tuple(call for call in facts.calls if _generates(facts, call))


def _generates(facts: Facts, call: Call) -> bool:
    function = call.node.func
    return (isinstance(function, ast.Attribute) and function.attr == "generate") or is_pipeline(facts, function)


def is_pipeline(facts: Facts, function: ast.expr) -> bool:
    if not isinstance(function, ast.Name | ast.Attribute):
        return False
    made = facts.follow(function)
    if not isinstance(made, ast.Call) or facts.call_of.get(made) is None:
        return False
    call = facts.call_of[made]
    return call.last == "pipeline" and facts.constant(call.argument("task", 0)) in ("text-generation", None)


def generates(facts: Facts, scope: ast.AST) -> bool:
    return scope in _asking_scopes(facts)


@lru_cache(maxsize=2)
def _asking_scopes(facts: Facts) -> frozenset[ast.AST]:
    return frozenset(call.scope for call in generations(facts))


def function_around(facts: Facts, node: ast.AST) -> Function | None:
    return next(
        (above for above in facts.above(node) if isinstance(above, ast.FunctionDef | ast.AsyncFunctionDef)), None
    )
