"""A small model and servers of it, each in a process of its own, for the benchmarks of serving."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from plume.models import gpt
from plume.models.bundle import bundle, save
from plume.text.template import TEMPLATES
from plume.text.tokenizer import train_tokenizer

_STARTING = 120  # seconds
_TEXTS = ["Où est le phare ? « Au large », dit-elle. 漢字 🦉 L’été.", "Where is the boat? In the harbour. Let me look."]
SIZES = {
    "0.2M": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "5M": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8},
    "30M": {"hidden_size": 512, "num_hidden_layers": 10, "num_attention_heads": 8},
}


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers at `url`; `model` is what it calls the model."""

    url: str
    model: str
    pid: int


def untrained(size: str, directory: Path) -> Path:
    """A model of random weights as a Hugging Face directory; its answers go on to the limit."""
    torch.manual_seed(1)
    tokenizer = train_tokenizer("bpe", _TEXTS * 3, 400)
    sizes = {**SIZES[size], "dropout": 0.0, "max_length": 2048}
    model = gpt.build({"vocab_size": tokenizer.vocab_size, **sizes})
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    path = directory / f"gpt-{size}"
    path.mkdir()
    save(bundle(model, tokenizer, TEMPLATES["chat"], 100), path, "")
    return path


@contextlib.contextmanager
def plume(model: Path, folder: Path) -> Iterator[Served]:
    port = _free_port()
    data = ["--data-dir", str(folder / "data"), "--port", str(port)]
    with _running(
        [sys.executable, "-m", "plume", "serve", str(model), *data],
        f"http://127.0.0.1:{port}/healthz",
        folder / "plume.log",
    ) as pid:
        yield Served(f"http://127.0.0.1:{port}", model.name, pid)


@contextlib.contextmanager
def transformers(model: Path, folder: Path, *options: str) -> Iterator[Served]:
    port = _free_port()
    program = str(Path(sys.executable).parent / "transformers")
    command = [program, "serve", str(model), "--port", str(port), "--device", "cpu", *options]
    with _running(command, f"http://127.0.0.1:{port}/health", folder / "transformers.log") as pid:
        yield Served(f"http://127.0.0.1:{port}", str(model), pid)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


@contextlib.contextmanager
def _running(command: list[str], health: str, log: Path) -> Iterator[int]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        _until_it_answers(process, health, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _until_it_answers(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    due = time.monotonic() + _STARTING
    while time.monotonic() < due and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"{health} does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port
