"""A real server in a thread of the test's own process, with small models, for OpenAI's own client to talk to."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import torch
import torch.nn.functional as F

from plume.memory import open_store
from plume.memory.store import Store
from plume.models import gpt
from plume.models.bundle import Bundle, bundle, save
from plume.serving.app import create_app
from plume.serving.documents import held
from plume.serving.server import Server, listen, make_server
from plume.serving.service import Service
from plume.serving.settings import Settings
from plume.text.template import TEMPLATES
from plume.text.tokenizer import train_tokenizer
from plume.types import Encoded, Message, ToolCall

SECONDS = 30
CONTEXT = 2048
_TEXTS = ["Où est le phare ? « Au large », dit-elle. 漢字 🦉 L’été.", "Where is the boat? In the harbour. Let me look."]


@functools.cache
def untrained(template: str = "chat", *, context: int = CONTEXT) -> Bundle:
    """A model that says anything; its vocabulary knows all bytes."""
    torch.manual_seed(1)
    tokenizer = train_tokenizer("bpe", _TEXTS * 3, 400)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.0, "max_length": context}
    model = gpt.build({"vocab_size": tokenizer.vocab_size, **sizes})
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return bundle(model, tokenizer, TEMPLATES[template], 20)


FIND: Any = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {
            "type": "object",
            "properties": {"what": {"type": "string", "enum": ["boat", "bell"]}},
            "required": ["what"],
            "additionalProperties": False,
        },
    },
}
CALLED = Message("assistant", "Let me look.", (ToolCall("find", '{"what": "boat"}'),))
CONVERSATIONS = (
    (Message("user", "Where is the boat?"), CALLED),
    (Message("user", "Hello"), Message("assistant", "Good day. It’s été!")),
    (
        Message("user", "Where is the boat?"),
        CALLED,
        Message("tool", "harbour", tool_call_id="call_1"),
        Message("assistant", "In the harbour."),
    ),
)


@functools.cache
def caller() -> Bundle:
    """A model that has learnt `CONVERSATIONS` by heart, with the tool `FIND` before its eyes."""
    made = untrained()
    return taught([made.template.encode(messages, made.tokenizer, [FIND]) for messages in CONVERSATIONS])


def taught(rows: Sequence[Encoded]) -> Bundle:
    """A model that has learnt these by heart, with the tokenizer and the template of the untrained one."""
    made = untrained()
    torch.manual_seed(2)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "dropout": 0.0, "max_length": 512}
    model = gpt.build({"vocab_size": made.tokenizer.vocab_size, **sizes})
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train(True)
    for _ in range(80):
        loss = torch.zeros(())
        for row in rows:
            hidden, _ = model(torch.tensor([row.ids[:-1]]))
            targets = torch.tensor(
                [id if taught else -100 for id, taught in zip(row.ids, row.trained, strict=True)][1:]
            )
            loss = loss + F.cross_entropy(model.head(hidden[0]), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.train(False)
    return bundle(model, made.tokenizer, TEMPLATES["chat"], 60)


@dataclass
class Running:
    """A server that listens; `client` and the others are of OpenAI's package, unchanged."""

    url: str
    port: int
    server: Server
    service: Service
    loop: asyncio.AbstractEventLoop

    def client(self, key: str = "any", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, "timeout": SECONDS, **options}
        )

    def asynchronous(self, key: str = "any", **options: Any) -> openai.AsyncOpenAI:
        options = {"max_retries": 0, "timeout": SECONDS, **options}
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, **options)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Something in the server's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the server is to do by itself."""

        async def watch() -> None:
            async with asyncio.timeout(SECONDS):
                while not condition():
                    await asyncio.sleep(0.001)

        self.do(watch())

    @property
    def outstanding(self) -> int:
        return sum(loaded.worker.outstanding for loaded in self.service.models.loaded)


@contextmanager
def running(
    directory: Path,
    models: Mapping[str, Bundle],
    *,
    store: Store | None = None,
    sources: Sequence[Any] = (),
    **settings: Any,
) -> Iterator[Running]:
    """A server of models by these names, on a free port."""
    for name, made in models.items():
        path = directory / "data" / "models" / name
        path.mkdir(parents=True)
        save(made, path, "")
    chosen = Settings(data_dir=directory / "data", port=0, **settings)
    with held(chosen.data_dir), store or open_store("memory:") as opened:
        app = create_app(chosen, opened, sources)
        listening = listen("127.0.0.1", 0)
        ready = threading.Event()
        server = make_server(app, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            assert ready.wait(SECONDS)
            assert server.loop is not None
            port = listening.getsockname()[1]
            yield Running(f"http://127.0.0.1:{port}", port, server, app.state.service, server.loop)
        finally:
            if thread.is_alive() and server.loop is not None:
                server.loop.call_soon_threadsafe(server.stop)
            thread.join(SECONDS)
            assert not thread.is_alive()
