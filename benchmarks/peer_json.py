"""One library that holds answers to a JSON Schema, asked line by line: the worker of benchmarks/json_schemas.py.

    python benchmarks/peer_json.py LIBRARY SETUP

SETUP is a JSON file: `tokens`, the bytes of every id in hexadecimal (null for special ones); `stop`, the id that ends
an answer; `directory`, the tokenizer as a Hugging Face directory. Each line on stdin is `{"schema", "instances"}`,
an instance being token ids; each line on stdout tells how long compiling took, what was refused, which instances may
be said, and how long each token of them took. Imports what it needs of its library, and nothing else of the peers'.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

ADDRESSES = 12 * 2**30  # bytes


class Matcher(Protocol):
    """Where an answer stands. `mask` computes what may follow, as choosing a token needs it; `take` moves on by one
    token, if that is allowed."""

    def mask(self) -> None: ...
    def take(self, id: int) -> bool: ...
    def complete(self) -> bool: ...


Compiled = Callable[[], Matcher]
Library = Callable[[Any], Compiled]


def main() -> None:
    library, setup = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    started = time.perf_counter()
    compile_schema = LIBRARIES[library](setup)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    say({"ready": time.perf_counter() - started})
    for line in sys.stdin:
        job = json.loads(line)
        say(ask(compile_schema, job["schema"], job["instances"]))


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def ask(compile_schema: Library, schema: Any, instances: Sequence[Sequence[int]]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        start = compile_schema(schema)
        start()
    except BaseException as error:  # a peer in Rust panics with an exception of its own
        if isinstance(error, KeyboardInterrupt):
            raise
        refusal = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        return {"compile": time.perf_counter() - started, "refused": refusal, "accepted": [], "masks": [], "steps": []}
    compiled = time.perf_counter() - started
    accepted: list[bool | None] = []
    masks: list[float] = []
    steps: list[float] = []
    for ids in instances:
        try:
            accepted.append(drive(start(), ids, masks, steps))
        except Exception:
            accepted.append(None)  # it broke on the way
    return {"compile": compiled, "refused": None, "accepted": accepted, "masks": masks, "steps": steps}


def drive(matcher: Matcher, ids: Sequence[int], masks: list[float], steps: list[float]) -> bool:
    for id in ids:
        started = time.perf_counter()
        matcher.mask()
        masked = time.perf_counter()
        allowed = matcher.take(id)
        steps.append(time.perf_counter() - started)
        masks.append(masked - started)
        if not allowed:
            return False
    return matcher.complete()


# --- libraries -------------------------------------------------------------------------------------


def plume(setup: dict[str, Any]) -> Library:
    import torch

    from plume.generation.constrain import json_schema
    from plume.models.bigram import Bigram, BigramConfig
    from plume.models.bundle import bundle
    from plume.text.tokenizer import load_tokenizer
    from plume.types import Constraint

    torch.set_num_threads(1)
    tokenizer = load_tokenizer(Path(setup["directory"]))
    model = Bigram(BigramConfig(vocab_size=tokenizer.vocab_size, hidden_size=8))
    asked = bundle(model, tokenizer, "raw", 256)

    class Held:
        def __init__(self, constraint: Constraint) -> None:
            self.constraint, self.room = constraint, 512
            self.allowed_V = constraint.allowed_V()

        def mask(self) -> None:
            self.allowed_V = self.constraint.allowed_V()

        def take(self, id: int) -> bool:
            """With the question whether an ending still fits, which every step of the engine asks."""
            self.room -= 1
            if self.constraint.done or not self.allowed_V[id]:
                return False
            self.constraint.fits(id, self.room)
            self.constraint.advance(id)
            return True

        def complete(self) -> bool:
            return self.constraint.accepting

    def compile_schema(schema: Any) -> Compiled:
        grammar = json_schema(schema, asked)
        return lambda: Held(grammar.start())

    return compile_schema


def llguidance(setup: dict[str, Any]) -> Library:
    """The engine that Plume uses, as it comes: no endings, no judge, its own idea of white space."""
    import numpy as np
    from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

    class Tokens:
        bos_token_id = None
        eos_token_id = setup["stop"]
        tokens = tuple(bytes.fromhex(token) if token else b"<%d>" % id for id, token in enumerate(setup["tokens"]))
        special_token_ids = tuple(id for id, token in enumerate(setup["tokens"]) if not token)

        def __call__(self, text: str | bytes) -> list[int]:
            return list(text.encode() if isinstance(text, str) else text)

    tokenizer = LLTokenizer(TokenizerWrapper(Tokens()), slices=LLTokenizer.json_slices())
    words = np.zeros((len(setup["tokens"]) + 31) // 32, dtype=np.int32)

    class Held:
        def __init__(self, matcher: Any) -> None:
            self.matcher = matcher

        def mask(self) -> None:
            self.matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)

        def take(self, id: int) -> bool:
            return self.matcher.validate_tokens([id]) == 1 and bool(self.matcher.consume_token(id))

        def complete(self) -> bool:
            return bool(self.matcher.is_accepting())

    def compile_schema(schema: Any) -> Compiled:
        matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)), log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return lambda: Held(matcher.deep_copy())

    return compile_schema


def xgrammar(setup: dict[str, Any]) -> Library:
    import torch
    import xgrammar as xgr

    torch.set_num_threads(1)
    tokens = [bytes.fromhex(token) if token else b"" for token in setup["tokens"]]
    info = xgr.TokenizerInfo(tokens, xgr.VocabType.RAW, vocab_size=len(tokens), stop_token_ids=[setup["stop"]])
    compiler = xgr.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    mask = xgr.allocate_token_bitmask(1, len(tokens))

    class Held:
        def __init__(self, matcher: Any) -> None:
            self.matcher = matcher

        def mask(self) -> None:
            if not self.matcher.is_terminated():
                self.matcher.fill_next_token_bitmask(mask)

        def take(self, id: int) -> bool:
            return not self.matcher.is_terminated() and bool(self.matcher.accept_token(id))

        def complete(self) -> bool:
            return bool(self.matcher.accept_token(setup["stop"]))

    def compile_schema(schema: Any) -> Compiled:
        compiled = compiler.compile_json_schema(json.dumps(schema), strict_mode=False)
        return lambda: Held(xgr.GrammarMatcher(compiled))

    return compile_schema


def outlines_core(setup: dict[str, Any]) -> Library:
    import torch
    from outlines_core import Guide, Index, Vocabulary
    from outlines_core.json_schema import build_regex_from_schema

    torch.set_num_threads(1)
    ids_of: dict[bytes, list[int]] = {}
    for id, token in enumerate(setup["tokens"]):
        if token and id != setup["stop"]:
            ids_of.setdefault(bytes.fromhex(token), []).append(id)
    vocabulary = Vocabulary(setup["stop"], ids_of)
    mask = torch.zeros((1, (len(setup["tokens"]) + 31) // 32), dtype=torch.int32)

    class Held:
        def __init__(self, guide: Any) -> None:
            self.guide = guide

        def mask(self) -> None:
            self.guide.write_mask_into(mask.data_ptr(), mask.numel(), mask.element_size())

        def take(self, id: int) -> bool:
            if id == setup["stop"] or not int(mask[0, id // 32]) >> id % 32 & 1:
                return False
            self.guide.advance(id, return_tokens=False)
            return True

        def complete(self) -> bool:
            return setup["stop"] in self.guide.get_tokens()

    def compile_schema(schema: Any) -> Compiled:
        index = Index(build_regex_from_schema(json.dumps(schema)), vocabulary)
        return lambda: Held(Guide(index))

    return compile_schema


def lm_format_enforcer(setup: dict[str, Any]) -> Library:
    from lmformatenforcer import JsonSchemaParser
    from lmformatenforcer.tokenenforcer import TokenEnforcer, TokenEnforcerTokenizerData

    tokens = [bytes.fromhex(token) if token else b"" for token in setup["tokens"]]
    texts = [(id, token.decode(errors="replace"), False) for id, token in enumerate(tokens) if token]

    def decode(ids: Sequence[int]) -> str:
        return b"".join(tokens[id] for id in ids).decode(errors="replace").rstrip("\N{REPLACEMENT CHARACTER}")

    data = TokenEnforcerTokenizerData(texts, decode, setup["stop"], True, len(tokens))

    class Held:
        def __init__(self, enforcer: Any) -> None:
            self.enforcer, self.said = enforcer, list[int]()

        def mask(self) -> None:
            self.enforcer.get_allowed_tokens(self.said)  # kept by the library for the next question

        def take(self, id: int) -> bool:
            if not self.enforcer.get_allowed_tokens(self.said).is_token_allowed(id):
                return False
            self.said.append(id)
            return True

        def complete(self) -> bool:
            return bool(self.enforcer.get_allowed_tokens(self.said).is_token_allowed(setup["stop"]))

    return lambda schema: lambda: Held(TokenEnforcer(data, JsonSchemaParser(schema)))


LIBRARIES: dict[str, Callable[[dict[str, Any]], Library]] = {
    "plume": plume,
    "llguidance": llguidance,
    "xgrammar": xgrammar,
    "outlines-core": outlines_core,
    "lm-format-enforcer": lm_format_enforcer,
}

if __name__ == "__main__":
    main()
