"""Bytes that nobody meant to be data, before every reader: none may crash, hang, swell, or name a place that is not.

    python benchmarks/fuzz_readers.py [--inputs 200000] [--monsters] [--seed 1] [--only jsonl]

Inputs are mutations of the files in tests/corpus, guided by coverage when atheris is installed (pip install
atheris), otherwise drawn at random. Each reader runs in a process of its own that may hold 4 GiB of addresses, and
1 GiB of memory under atheris. What must hold is written down in tests/hostile.py. The input that broke a reader is
kept, and the exit code is 1. `--monsters` reads the large hand-made files instead, one after another.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

CORPUS = ROOT / "tests" / "corpus"
ADDRESSES = 4 * 2**30  # bytes
LONGEST = 4096  # bytes of an input
MONSTER_SECONDS = 120
WORDS = (
    '{"prompt": "', '", "completion": "', '"}\\x0a', '"messages": [', '"role": "user"', '"content"', '\\x0a', '\\x0d',
    '\\x00', '\\xef\\xbb\\xbf', '\\xff\\xfe', '\\xed\\xa0\\x80', '\\\\ud800', '1e999', 'NaN', 'null', ',', ';', '""',
    'sep=;', '"cells": [', '"source": [', '%%time', 'def f():', '\\x28\\xb5\\x2f\\xfd', '\\x1f\\x8b\\x08', 'PAR1',
)  # fmt: skip


def main() -> None:
    from hostile import SUFFIXES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=200_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[suffix[1:] for suffix in SUFFIXES], help="one reader")
    parser.add_argument("--monsters", action="store_true")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where inputs go that broke a reader")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        mutate(f".{options.only}", options.inputs, options.seed, options.keep)
        return
    if options.monsters:
        sys.exit(bool(monsters(options.only)))
    readers = [f".{options.only}"] if options.only else list(SUFFIXES)
    broken = [
        suffix for suffix in readers if not fuzz(suffix, options.inputs // len(readers), options.seed, options.keep)
    ]
    print(f"broken: {', '.join(broken)}" if broken else "every reader survived")
    sys.exit(bool(broken))


def fuzz(suffix: str, inputs: int, seed: int, keep: Path) -> bool:
    """Whether a reader, in a process of its own, survives so many inputs."""
    keep.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    arguments = ["--child", "--only", suffix[1:], "--inputs", str(inputs), "--seed", str(seed), "--keep", str(keep)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, errors="replace")
    said = done.stdout + done.stderr
    runs = [int(count) for count in re.findall(r"^(?:#(\d+)\s+DONE|Done (?:\d+))", said, re.MULTILINE) if count]
    seconds = time.monotonic() - began
    print(
        f"{suffix:11} {runs[-1] if runs else 0:8,} inputs {seconds:6.0f} s  {'ok' if not done.returncode else 'BROKEN'}"
    )
    if done.returncode:
        print("\n".join([line for line in said.splitlines() if not line.startswith(("#", "INFO", "WARNING"))][-40:]))
    return not done.returncode


def mutate(suffix: str, inputs: int, seed: int, keep: Path) -> None:
    """Put mutated files before one reader; ends the process when one breaks it."""
    try:
        atheris = importlib.import_module("atheris")
    except ModuleNotFoundError:
        at_random(suffix, inputs, seed, keep)
        return
    with atheris.instrument_imports(include=["plume.data", "plume.checks.scripts"], enable_loader_override=False):
        import plume.checks.scripts
        import plume.data.read  # noqa: F401
    from hostile import survives

    with tempfile.TemporaryDirectory() as folder:
        path, known, words = Path(folder, f"input{suffix}"), Path(folder, "seeds"), Path(folder, "words")
        known.mkdir()
        for number, data in enumerate(seeds(suffix)):
            (known / str(number)).write_bytes(data)
        quoted = (word.replace('"', '\\"') for word in WORDS)
        words.write_text("".join(f'"{word}"\n' for word in quoted), encoding="utf-8")

        def one(data: bytes) -> None:
            path.write_bytes(data)
            survives(path)

        limits = [f"-max_len={LONGEST}", "-timeout=5", "-rss_limit_mb=1024", "-len_control=0", f"-dict={words}"]
        run = [f"-runs={inputs}", f"-seed={seed}", f"-artifact_prefix={keep}/{suffix[1:]}-", "-verbosity=1"]
        atheris.Setup([sys.argv[0], *limits, *run, str(known)], one)
        atheris.Fuzz()


def at_random(suffix: str, inputs: int, seed: int, keep: Path) -> None:
    from hostile import survives

    rng, known = random.Random(seed), list(seeds(suffix))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"input{suffix}")
        for _ in range(inputs):
            data = mutated(rng.choice(known), rng)
            path.write_bytes(data)
            try:
                survives(path)
            except BaseException:
                (keep / f"{suffix[1:]}-{abs(hash(data)):x}").write_bytes(data)
                raise
    print(f"#{inputs} DONE")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, lost, repeated or put in."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(made) + 1)
        until = min(len(made), place + rng.choice((0, 1, 1, 2, 8, 64)))
        word = rng.choice(WORDS).encode().decode("unicode_escape").encode("latin-1")
        made[place:until] = rng.choice((b"", word, rng.randbytes(2), bytes(made[place:until]) * 2))
    return bytes(made[:LONGEST])


def seeds(suffix: str) -> Iterator[bytes]:
    """The files of the corpus that such a reader reads, as it reads them."""
    if suffix == ".parquet":
        yield from parquet_seeds()
        return
    pack = {".gz": gzip.compress, ".zst": zstd}.get(Path(suffix).suffix)
    inner = Path(f"x{suffix}").stem if pack else f"x{suffix}"
    for file in sorted(CORPUS.rglob(f"*{Path(inner).suffix}")):
        data = file.read_bytes()
        if "manifest" not in file.name and len(data) <= 4 * LONGEST:
            yield pack(data[: 2 * LONGEST]) if pack else data[:LONGEST]
    yield pack(b"") if pack else b""


def zstd(data: bytes) -> bytes:
    import zstandard

    return bytes(zstandard.compress(data))


def parquet_seeds() -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for columns in (
        {"prompt": ["q", "é ?"], "completion": ["a", None]},
        {"text": ["only text"] * 3},
        {"messages": [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]]},
        {"prompt": [b"\xff", b"x"], "completion": [1, 2]},
    ):
        for compression in ("none", "snappy"):
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(columns), sink, compression=compression)
            yield sink.getvalue().to_pybytes()


def monsters(only: str | None) -> int:
    """Read every hand-made file in a process of its own; how many broke their reader."""
    from hostile import MONSTERS

    broken = 0
    for monster in MONSTERS:
        if only and not monster.name.endswith(only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = monster.write(Path(folder), monster.large)
            size = path.stat().st_size / 1e6
            sys.stdout.flush()
            child = os.fork()
            if not child:
                os._exit(survived(path))
            _, status, used = os.wait4(child, 0)
        broken += bool(status)
        seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        verdict = "BROKEN" if status else "ok"
        print(
            f"{monster.name:28} {size:6.1f} MB  {seconds:6.1f} s of processor  peak {peak:5.0f} MB  {verdict}",
            flush=True,
        )
    return broken


def survived(path: Path) -> int:
    """0 if the reader survives the file within the limits; 1, and the fault on stderr, if not."""
    from hostile import survives

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * MONSTER_SECONDS, 2 * MONSTER_SECONDS))
    try:
        survives(path, seconds=MONSTER_SECONDS)
    except BaseException as error:
        print("".join(traceback.format_exception(error, limit=-6))[-1500:], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main()
