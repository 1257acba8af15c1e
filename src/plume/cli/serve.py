"""`plume serve`: OpenAI's API on this machine."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plume.cli import options, output
from plume.cli.stores import StoreKeyFile, open_named
from plume.errors import UserError

if TYPE_CHECKING:
    from plume.memory.store import Store
    from plume.serving.models import Models
    from plume.serving.settings import Settings

EXAMPLES = "Examples: plume serve runs/qa · plume serve runs/qa runs/poems --port 9000 · plume serve --require-key"
_QUESTION = "Hello!"


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="[MODEL]...", help="Run directories, model directories or hub ids.")
    ] = [],  # noqa: B006 - typer reads the default, nobody writes it
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any that is free.")] = 8000,
    data_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="What the server keeps; models under DIR/models are served too.")
    ] = Path("plume-data"),
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Keys and conversations (else a file under --data-dir).")
    ] = None,
    store_key_file: StoreKeyFile = None,
    require_key: Annotated[bool, typer.Option("--require-key", help="Take no request without a known key.")] = False,
    requests_per_minute: Annotated[int | None, typer.Option(metavar="N", help="Most requests of one key.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(metavar="N", help="Most tokens of one key.")] = None,
    memory: Annotated[float | None, typer.Option(metavar="GIB", help="Most memory for models.")] = None,
    drain_seconds: Annotated[float, typer.Option(metavar="S", help="How long to wait for answers at the end.")] = 30,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="OTEL_EXPORTER_OTLP_ENDPOINT", help="Where traces and metrics are sent."),
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", help="Most fine-tuning jobs that run at once.")] = 1,
    request_seconds: Annotated[float, typer.Option(metavar="S", help="The longest that one answer may take.")] = 600,
    recall: Annotated[
        bool, typer.Option("--recall", help="Let cut responses take up older turns again that a question is about.")
    ] = False,
    redact: options.Redact = None,
    redact_names: options.RedactNames = None,
    leave_vaults: Annotated[
        bool,
        typer.Option("--leave-vaults", help="Start although vaults stay shut: without --redact, or with a new key."),
    ] = False,
) -> None:
    """Serve models by OpenAI's API: any of its clients works with the base URL that is printed.

    Beyond this machine (--host) every request needs a key. SIGTERM or Ctrl-C lets what is under way come to its end.
    """
    _need_libraries()
    from plume.cli.redacting import door
    from plume.serving.documents import held
    from plume.serving.past import vault_of
    from plume.serving.settings import Settings

    settings = Settings(
        *(tuple(models), data_dir, store, host, port, require_key),
        memory_nbytes=None if memory is None else int(memory * 2**30),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        drain_seconds=drain_seconds,
        request_seconds=request_seconds,
        otlp_endpoint=otlp_endpoint or None,
        jobs_at_once=jobs,
        recall=recall,
    )
    behind = door(redact, redact_names, vault_of)
    with held(data_dir):
        _run(settings, store_key_file, behind, leave_vaults=leave_vaults)


def _run(
    settings: Settings, store_key_file: Path | None, behind: Callable[[Store], Store], *, leave_vaults: bool
) -> None:
    from plume.cli.redacting import check_vaults
    from plume.memory.keys import list_keys
    from plume.serving import logs
    from plume.serving.app import create_app
    from plume.serving.server import listen, make_server

    logs.write_to(sys.stderr)
    with open_named(settings.store, settings.data_dir, store_key_file, new=True) as store:
        if settings.needs_key and not list_keys(store):
            raise UserError(
                "every request would need a key, and there is none",
                "make one: plume keys create, or serve on 127.0.0.1",
            )
        door = behind(store)
        check_vaults(door, leave=leave_vaults)
        app = create_app(settings, door)
        listening = listen(settings.host, settings.port)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{listening.getsockname()[1]}"
        server = make_server(app, lambda: _greet(url, settings, app.state.service.models))
        server.run(sockets=[listening])
    if server.interrupted:
        raise KeyboardInterrupt


def _need_libraries() -> None:
    try:
        import fastapi  # noqa: F401
        import limits  # noqa: F401
        import openai  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"the library {error.name} is missing", "pip install 'plume-lm[serve]'") from None


def _greet(url: str, settings: Settings, models: Models) -> None:
    """Where the server is, what it serves, and three ways to ask it."""
    from plume.memory.store import LOCAL

    names = list(models.entries(LOCAL))
    output.write(f"Plume listens on {url}/v1\n")
    output.write("models:   " + (", ".join(names) or f"none yet: put some under {settings.data_dir / 'models'}"))
    output.write("to train: " + ", ".join(models.trainable))
    known = "a known one (plume keys create)" if settings.needs_key else "any, none is checked on this machine"
    output.write(f"key:      {known}")
    key = "YOUR_KEY" if settings.needs_key else "any"
    for name, lines in snippets(url, key, names[0] if names else "MODEL").items():
        output.write(f"\n# {name}\n{lines}")


def snippets(url: str, key: str, model: str) -> dict[str, str]:
    """Programs to paste, in three languages."""
    message = [{"role": "user", "content": _QUESTION}]
    body = json_module.dumps({"model": model, "messages": message}, ensure_ascii=False)
    quoted, messages = json_module.dumps(model, ensure_ascii=False), json_module.dumps(message, ensure_ascii=False)
    shell = body.replace("'", "'\\''")
    return {
        "curl": f"curl {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\\n"
        f"  -H 'Content-Type: application/json' -d '{shell}'",
        "Python (pip install openai)": f"from openai import OpenAI\n"
        f'client = OpenAI(base_url="{url}/v1", api_key="{key}")\n'
        f"answer = client.chat.completions.create(model={quoted}, messages={messages})\n"
        f"print(answer.choices[0].message.content)",
        "JavaScript (npm install openai)": f'import OpenAI from "openai";\n'
        f'const client = new OpenAI({{ baseURL: "{url}/v1", apiKey: "{key}" }});\n'
        f"const answer = await client.chat.completions.create({{ model: {quoted}, messages: {messages} }});\n"
        f"console.log(answer.choices[0].message.content);",
    }
