"""A tokenizer as GGUF holds it: byte-level BPE under the name `gpt2`, SentencePiece's with bytes under `llama`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plume.errors import UserError
from plume.models.bundle import Bundle

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_CONTRACTIONS + r"\p{N}{1,3}" + _REST: "llama-bpe", _CONTRACTIONS + r"\p{N}" + _REST: "qwen2"}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_SPECIAL = ("bos", "eos", "unk", "sep", "pad")
_NOT_MERGED = -1e6  # the score of a piece that no merge makes


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`pre` names the way in which llama.cpp cuts a text into words before it merges."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]


def vocabulary(bundle: Bundle, size: int) -> Vocabulary:
    """The tokens of a bundle, filled up to the `size` of its model.

    Raises UserError for a tokenizer that llama.cpp could not follow.
    """
    described = json.loads(bundle.tokenizer.source)
    model = described["model"]
    if model["type"] != "BPE":
        raise UserError(
            f"llama.cpp has no tokenizer of the kind {model['type']} that gives the same ids",
            "train with tokenizer=bpe, or keep the model in Plume",
        )
    byte_fallback = bool(model.get("byte_fallback"))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    tokens = [f"[PAD{id}]" for id in range(size)]
    types = [_UNUSED] * size
    for text, id in model["vocab"].items():
        tokens[id], types[id] = text, _BYTE if byte_fallback and _is_byte(text) else _NORMAL
    for token in described["added_tokens"]:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = _CONTROL if token["special"] else _USER_DEFINED
    unk = model["vocab"].get(model.get("unk_token"))
    if byte_fallback and unk is not None:
        types[unk] = _UNKNOWN
    if not byte_fallback:
        return Vocabulary("gpt2", _pre(described["pre_tokenizer"] or {}), tokens, types, merges, [])
    return Vocabulary("llama", "default", tokens, types, [], _scores(tokens, merges))


def add(writer: Any, gguf: Any, bundle: Bundle, known: Vocabulary) -> None:
    """Put a vocabulary, its special ids and the chat template into a file."""
    writer.add_tokenizer_model(known.model)
    writer.add_tokenizer_pre(known.pre)
    writer.add_token_list(known.tokens)
    writer.add_token_types([gguf.TokenType(kind) for kind in known.types])
    if known.scores:
        writer.add_token_scores(known.scores)
        writer.add_add_space_prefix(bundle.tokenizer.prepends_space)
    else:
        writer.add_token_merges(known.merges)
    ids = _special_ids(bundle)
    for name, id in ids.items():
        getattr(writer, f"add_{name}_token_id")(id)
    others = sorted(bundle.stop_ids - {ids.get("eos")})
    if others:
        writer.add_eot_token_id(others[0])
    writer.add_add_bos_token(_adds_bos(bundle, ids))
    writer.add_add_eos_token(False)
    if bundle.own_template:
        writer.add_chat_template(bundle.template.source)


def _pre(described: Mapping[str, Any]) -> str:
    """The name of a way to cut; refused when it has none, as other cuts give other ids."""
    parts = described.get("pretokenizers", [described])
    kinds = [part.get("type") for part in parts]
    if any(part.get("add_prefix_space") for part in parts):
        raise UserError("llama.cpp puts no space before a text with this tokenizer", "keep the model in Plume")
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = parts[0]["pattern"].get("Regex", "")
        if pattern in _SPLITS:
            return _SPLITS[pattern]
    raise UserError(
        f"the tokenizer cuts text in a way that Plume cannot name to llama.cpp ({', '.join(map(str, kinds))})",
        "convert the model with llama.cpp's own script",
    )


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """SentencePiece merges the pair of the best score first, which is the pair of the earliest merge."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return [-float(ranks[token]) if token in ranks else _NOT_MERGED for token in tokens]


def _special_ids(bundle: Bundle) -> dict[str, int]:
    specials = bundle.tokenizer.special_tokens
    named = bundle.tokenizer.special_token_names
    return {name: specials[named[f"{name}_token"]] for name in _SPECIAL if named.get(f"{name}_token") in specials}


def _adds_bos(bundle: Bundle, ids: Mapping[str, int]) -> bool:
    return "bos" in ids and bundle.tokenizer.encode("a", add_special_tokens=True)[:1] == [ids["bos"]]


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")
