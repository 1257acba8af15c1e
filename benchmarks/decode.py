"""Tokens a second of decoding on a CPU in float32, beside transformers, beside what the memory gives, beside llama.cpp.

    python benchmarks/decode.py [--only 1m 124m batch] [--repeats 5] [--threads 2] [--gguf FILE] [--stories DIR]

Random models of GPT-2's shape (124 M: 12 layers of 768, 50,257 tokens) and of ours (0.8 M), prompts of random ids,
greedy, no end token; the reading of the prompts counts. transformers: `generate`, eager and with a static cache and
`torch.compile`, left-padded where lengths are mixed. Plume with int8 weights stands beside Plume without. Sides
alternate in one process. The limit of memory is the fastest of three plain reads of a gigabyte, divided by the bytes of
the weights that one token needs. `--gguf` is the same kind of model for llama.cpp; `--stories` a real small model,
whose continuations are compared id by id.
Prints one JSON line a comparison; medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config

from plume.generation.engine import Engine
from plume.models import gpt
from plume.models.bundle import Bundle, for_answering, load
from plume.models.quantized import write_quantized
from plume.models.weights import quantized_file
from plume.types import Sampling

PARTS = ("1m", "batch", "124m")
SIZES_1M = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "dropout": 0.0, "max_length": 512}
MIXED = (8, 256)  # lengths of prompts, from and to
NEW_MIXED = 64
WORDS = ("the lamp", "an old boat", "Tom", "a red kite", "the quiet harbour", "Lily", "her brother", "some bread")

END = "<|endoftext|>"

Side = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled transformers out")
    parser.add_argument("--gguf", type=Path, help="a model for llama.cpp")
    parser.add_argument("--stories", type=Path, help="directory of a small Llama that writes stories")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.stories:
        print(json.dumps(identical(options.stories, 1000)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if "1m" in options.only:
            one_row("decode/1m", saved_gpt(Path(folder) / "1m"), 512, options)
        if "batch" in options.only or "124m" in options.only:
            large = saved_gpt2(Path(folder) / "124m")
        if "batch" in options.only:
            for rows in (8, 32):
                mixed_rows(large, rows, options)
        if "124m" in options.only:
            if options.gguf:
                llama_cpp(large, options)
            eight_bits(large, options)
            one_row("decode/124m", large, 50_257, options)


def saved_gpt2(folder: Path) -> Path:
    AutoModelForCausalLM.from_config(GPT2Config()).save_pretrained(folder)
    return with_tokenizer(folder, 50_257)


def saved_gpt(folder: Path) -> Path:
    model = gpt.build({**SIZES_1M, "vocab_size": 512})
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.02)
    folder.mkdir()
    model.save(folder)
    return with_tokenizer(folder, 512)


def with_tokenizer(folder: Path, size: int) -> Path:
    """A byte-level vocabulary of so many tokens, so that streamed text costs what it costs with a real one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    others = [f"w{number}" for number in range(size - len(alphabet) - 1)]
    vocabulary = {token: id for id, token in enumerate([*alphabet, *others, END])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def prompts(rows: int, vocabulary: int) -> list[list[int]]:
    """One row has 32 tokens, several have mixed lengths from 8 to 256, the longest and the shortest among them."""
    chance = random.Random(7)
    lengths = [32] if rows == 1 else [*MIXED, *(chance.randint(*MIXED) for _ in range(rows - 2))]
    return [[chance.randrange(vocabulary) for _ in range(length)] for length in lengths]


def opened(folder: Path, quantization: str | None = None) -> Bundle:
    """To be asked; no token ends an answer, so that every side decodes the same number."""
    return replace(for_answering(load(folder, quantization)), stop_ids=frozenset())


def plume_stream(bundle: Bundle, ids: Sequence[int], new: int) -> float:
    began = time.perf_counter()
    chunks = list(Engine(bundle).stream(ids, Sampling(max_new_tokens=new)))
    assert sum(len(chunk.ids) for chunk in chunks) == new
    return new / (time.perf_counter() - began)


def plume_batch(bundle: Bundle, rows: Sequence[Sequence[int]], new: int) -> float:
    began = time.perf_counter()
    answers = Engine(bundle).generate(rows, Sampling(max_new_tokens=new))
    assert all(len(answer.ids) == new for answer in answers)
    return len(rows) * new / (time.perf_counter() - began)


@torch.inference_mode()
def transformers_speed(model: Any, rows: Sequence[Sequence[int]], new: int, **settings: Any) -> float:
    began = time.perf_counter()
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*[0] * (longest - len(row)), *row] for row in rows])
    mask = torch.tensor([[*[0] * (longest - len(row)), *[1] * len(row)] for row in rows])
    limits = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    out = model.generate(ids, attention_mask=mask, **limits, **settings)
    assert out.shape[1] == longest + new
    return len(rows) * new / (time.perf_counter() - began)


def one_row(bench: str, folder: Path, vocabulary: int, options: argparse.Namespace) -> None:
    (ids,), new = prompts(1, vocabulary), options.new_tokens
    bundle, stock = opened(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    sides: dict[str, Side] = {
        "plume": lambda: plume_stream(bundle, ids, new),
        "transformers generate": lambda: transformers_speed(stock, [ids], new),
    }
    if not options.no_compile:
        compiled = AutoModelForCausalLM.from_pretrained(folder).eval()
        compiled.forward = torch.compile(compiled.forward)
        sides["transformers generate, static cache, compiled"] = lambda: transformers_speed(
            compiled, [ids], new, cache_implementation="static"
        )
    if vocabulary > 512:
        needed = sum(p.nbytes for name, p in stock.named_parameters() if not name.endswith("wpe.weight"))
        sides["limit of memory"] = lambda: read_bandwidth() / needed
    runs = alternating(sides, options.repeats)
    middle = {side: statistics.median(run[side] for run in runs) for side in sides}
    peers = [side for side in sides if side.startswith("transformers")]
    if "limit of memory" in sides:
        report(bench, "share_of_memory_limit", middle, runs, "limit of memory")
    best = max(peers, key=lambda side: middle[side])
    for other in peers:
        if other != best:
            report(bench, "tokens_per_second", middle, runs, other)
    report(bench, bench.replace("decode/", "tokens_per_second_f32_"), middle, runs, best)


def eight_bits(folder: Path, options: argparse.Namespace) -> None:
    (ids,), new = prompts(1, 50_257), options.new_tokens
    write_quantized(load(folder).model, "int8", folder, quantized_file(folder, "int8"))
    whole, small = opened(folder), opened(folder, "int8")
    name = "plume, float32"
    runs = alternating(
        {"plume": lambda: plume_stream(small, ids, new), name: lambda: plume_stream(whole, ids, new)}, options.repeats
    )
    middle = {side: statistics.median(run[side] for run in runs) for side in runs[0]}
    report("decode/124m, int8", "tokens_per_second", middle, runs, name)


def mixed_rows(folder: Path, rows: int, options: argparse.Namespace) -> None:
    asked = prompts(rows, 50_257)
    bundle, stock = opened(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    name = "transformers generate, padded"
    sides = {
        "plume": lambda: plume_batch(bundle, asked, NEW_MIXED),
        name: lambda: transformers_speed(stock, asked, NEW_MIXED),
    }
    runs = alternating(sides, options.repeats)
    middle = {side: statistics.median(run[side] for run in runs) for side in sides}
    report(f"decode/124m, {rows} rows of 8 to 256", "tokens_per_second", middle, runs, name)


def llama_cpp(folder: Path, options: argparse.Namespace) -> None:
    try:
        from llama_cpp import Llama  # type: ignore[import-not-found]
    except ImportError:
        print(json.dumps({"bench": "decode/124m", "skipped": "llama_cpp is not installed"}), flush=True)
        return
    (ids,) = prompts(1, 50_257)
    new: int = options.new_tokens
    bundle = opened(folder)
    other = Llama(str(options.gguf), n_ctx=512, n_threads=options.threads, verbose=False)

    def theirs() -> float:
        other.reset()
        began = time.perf_counter()
        for count, _ in enumerate(other.generate(ids, temp=0.0), 1):
            if count == new:
                break
        return new / (time.perf_counter() - began)

    runs = alternating({"plume": lambda: plume_stream(bundle, ids, new), "llama.cpp": theirs}, options.repeats)
    middle = {side: statistics.median(run[side] for run in runs) for side in runs[0]}
    report(f"decode/124m, {options.gguf.name}", "tokens_per_second", middle, runs, "llama.cpp")


def read_bandwidth() -> float:
    """Bytes a second that come out of memory."""
    buffer = torch.ones(2**28)
    reads: tuple[Callable[[], Any], ...] = (
        buffer.sum,
        buffer.max,
        lambda: torch.mv(buffer.view(2**14, -1), buffer[: 2**14]),
    )
    times: list[float] = []
    for read in reads * 2:
        began = time.perf_counter()
        read()
        times.append(time.perf_counter() - began)
    return buffer.nbytes / min(times)


def alternating(sides: Mapping[str, Side], repeats: int) -> list[dict[str, float]]:
    """Every side once unmeasured, then in turns."""
    for side in sides.values():
        side()
    return [{name: side() for name, side in sides.items()} for _ in range(repeats)]


def report(
    bench: str, metric: str, middle: Mapping[str, float], runs: Sequence[Mapping[str, float]], peer: str
) -> None:
    row = {
        "bench": bench,
        "metric": metric,
        "unit": "tokens/s",
        "plume": round(middle["plume"], 2),
        "peer": round(middle[peer], 2),
        "peer_name": peer,
        "ratio": round(middle["plume"] / middle[peer], 3),
        "lower_is_better": False,
        "runs": [{side: round(value, 2) for side, value in run.items()} for run in runs],
    }
    print(json.dumps(row), flush=True)


def identical(folder: Path, count: int) -> dict[str, Any]:
    """How many greedy continuations of invented beginnings are those of transformers, id by id."""
    bundle, stock = for_answering(load(folder)), AutoModelForCausalLM.from_pretrained(folder).eval()
    engine, chance, same = Engine(bundle), random.Random(11), 0
    for _ in range(count):
        text = ". ".join(f"{chance.choice(WORDS)} and {chance.choice(WORDS)}" for _ in range(4)).capitalize()
        ids = bundle.tokenizer.encode(text, add_special_tokens=True)
        ids = ids[: chance.randint(2, len(ids))]
        new = chance.randint(16, 48)
        found = [id for chunk in engine.stream(ids, Sampling(max_new_tokens=new), reply=False) for id in chunk.ids]
        with torch.inference_mode():
            theirs = stock.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False)[0, len(ids) :].tolist()
        same += found == theirs
    return {"bench": "decode/stories", "metric": "identical_continuations", "unit": "", "plume": same, "of": count}


if __name__ == "__main__":
    main()
