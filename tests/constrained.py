"""Bundles for constraints to be compiled for, and a picker that knows nothing."""

import json
import random
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from plume.generation.constrain.compiled import Compiled
from plume.models.bundle import Bundle
from plume.text.tokenizer import TextTokenizer, train_tokenizer

TEXTS = [
    json.dumps(
        {"ville": "Brême", "âge": 12, "mots": ["été", "île", "« où »"], "prix": 3.5, "ok": True}, ensure_ascii=False
    ),
    json.dumps({"name": "a lighthouse", "lit": False, "height": 30, "note": None}),
    '{"a":1,"b":[],"c":{}}, {"date":"2024-05-17"} abcdefghijklmnopqrstuvwxyz 0123456789 -.:/@ 🐑',
]


def bundle_of(tokenizer: TextTokenizer) -> Bundle:
    """No model is needed to be constrained, only how many ids it knows: some more than the tokenizer."""
    model = SimpleNamespace(vocab_size=tokenizer.vocab_size + 5)
    return Bundle(cast(Any, model), tokenizer, cast(Any, None), frozenset([tokenizer.eos_id]))


def byte_fallback() -> TextTokenizer:
    """As SentencePiece makes them: some pieces with a mark for the space, and all bytes."""
    pieces = ["<s>", "<eos>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [
        "▁",
        "▁{",
        '"',
        '":',
        '",',
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "a",
        "e",
        "é",
        "▁a",
        "1",
        "0",
        "true",
        '▁"',
        "é▁",
    ]
    backend = Backend(
        models.BPE({piece: id for id, piece in enumerate(pieces)}, [], byte_fallback=True, unk_token="<s>")
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return TextTokenizer(backend, {}).with_special_tokens(
        ["<eos>", "<pad>"], {"eos_token": "<eos>", "pad_token": "<pad>"}
    )


@cache
def bundle(kind: str) -> Bundle:
    if kind == "byte-fallback":
        return bundle_of(byte_fallback())
    return bundle_of(train_tokenizer(cast(Any, kind), TEXTS, 500))


def answer(grammar: Compiled, bundle: Bundle, limit: int, seed: int, patience: float = 0.9) -> str:
    """The engine's loop around a picker that knows nothing."""
    chance = random.Random(seed)
    constraint = grammar.start()
    ids: list[int] = []
    while not constraint.done and len(ids) < limit:
        room = limit - len(ids)
        allowed = set(constraint.allowed_V().nonzero().flatten().tolist())
        assert (bundle.tokenizer.eos_id in allowed) == constraint.accepting
        allowed -= bundle.stop_ids
        if constraint.accepting and (not allowed or chance.random() > patience):
            break
        pick = next(
            (id for id in chance.sample(sorted(allowed), min(4, len(allowed))) if constraint.fits(id, room - 1)), None
        )
        if pick is None:
            end = constraint.shortest_end()
            if not end:
                break
            pick = end[0]
            assert len(end) <= room
            assert pick in allowed
            assert constraint.fits(pick, room - 1)
        constraint.advance(pick)
        ids.append(pick)
    assert constraint.accepting
    text = b"".join(bundle.tokenizer.token_bytes(id) for id in ids).decode("utf-8")
    return text.removeprefix(" ") if bundle.tokenizer.prepends_space else text


def says(made: Compiled, bundle: Bundle, text: str) -> bool:
    """May the answer be this text, however it is cut?"""
    constraint = made.start()
    for id in bundle.tokenizer.encode(text):
        if not constraint.allowed_V()[id]:
            return False
        constraint.advance(id)
    return constraint.accepting
