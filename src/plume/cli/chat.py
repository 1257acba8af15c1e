"""`plume chat`: a conversation that is kept, and goes on where it stopped."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plume.cli import answers, options, output
from plume.cli.stores import DATA_DIR, StoreKeyFile, open_named
from plume.errors import PlumeError, UserError
from plume.recipe import parse_settings
from plume.types import Chunk, Message, Sampling

if TYPE_CHECKING:
    from plume import chat as chats
    from plume.generation.engine import Engine
    from plume.memory.recall.search import Recall
    from plume.memory.store import Store, Tenant
    from plume.models.bundle import Bundle

EXAMPLES = (
    "Examples: plume chat runs/qa · plume chat runs/qa --persona keeper.txt --set temperature=0.7 · "
    "plume chat runs/qa --conversation conv_1f… --store postgresql://plume@db/plume · "
    "plume chat runs/qa < questions.txt"
)
_PROMPT = "> "


def chat(
    model: options.Model,
    conversation: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with this one (else a new one).")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it is kept (else where `plume serve` keeps, ./plume-data).")
    ] = None,
    store_key_file: StoreKeyFile = None,
    persona: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who the model is in this conversation (else its persona.txt).")
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Let the model summarise what no longer fits its context.")
    ] = False,
    recall: Annotated[
        bool, typer.Option("--recall", help="Take up older messages again that a question is about.")
    ] = False,
    redact: options.Redact = None,
    redact_names: options.RedactNames = None,
    settings: options.Settings = [],  # noqa: B006 - typer reads the default, nobody writes it
    quantization: options.Quantization = None,
    json: options.Json = False,
) -> None:
    """Talk with a model: each line is a question, and the answer comes as it is written.

    The conversation is kept, and goes on with --conversation in another process. /help shows the commands. Ctrl-C stops
    an answer, and ends the program when there is none. From a pipe or a file, each line is a question, too.
    """
    from plume.cli.redacting import door
    from plume.generation.settings import make_sampling
    from plume.memory.store import LOCAL
    from plume.text.template import read_persona

    chosen = parse_settings(settings)
    make_sampling(chosen, Sampling())
    said = read_persona(persona) if persona else None
    behind = door(redact, redact_names)
    from plume.generation.engine import Engine
    from plume.models.bundle import for_answering, load

    bundle = for_answering(load(model, quantization))  # before a store is made
    with open_named(store, DATA_DIR, store_key_file, new=True) as opened:
        tenant = behind(opened).tenant(LOCAL)
        if conversation is not None:
            _settle_persona(tenant, conversation, said)
        sampling = _sampling(bundle, chosen, json=json)
        recalls = _recall(opened, bundle) if recall else None
        kept = {"--store": store, "--store-key-file": store_key_file, "--quantization": quantization}
        told = {"--summary": summary, "--recall": recall, "--redact": redact, "--redact-names": redact_names}
        resume = _command(model, {**kept, **told}, settings) if _outlives(opened) else None
        talk = _Talk(Engine(bundle), tenant, sampling, said, summary, recalls, json, resume, conversation)
        talk.run()


@dataclass
class _Talk:
    """One sitting. A conversation is made with the answer to its first question; `resume` is what to type to go on with
    it, if it outlives this process."""

    engine: Engine
    tenant: Tenant
    sampling: Sampling
    persona: str | None
    summary: bool
    recalls: Recall | None
    json: bool
    resume: list[str] | None
    id: str | None

    def run(self) -> None:
        """Until the lines end, or /quit. At a terminal a mistake is told and the talk goes on."""
        interactive = sys.stdin.isatty()
        self._greet(interactive)
        try:
            for line in _lines(interactive):
                try:
                    if not self._obey(line):
                        break
                except PlumeError as error:
                    if not interactive:
                        raise
                    output.show_error(error.message, error.hint)
        finally:
            if self.id is not None and self.resume is not None:
                output.note(f"note: it goes on with: {shlex.join([*self.resume, '--conversation', self.id])}")

    def _greet(self, interactive: bool) -> None:
        if self.id is not None:
            output.note(f"conversation {self.id}: {len(self.tenant.read(self.id).items)} messages")
        if interactive:
            output.note("/help shows the commands")

    def _obey(self, line: str) -> bool:
        """Answer a line, or do what it commands; False ends the talk."""
        if line == "/quit":
            return False
        command = _COMMANDS.get(line)
        if command is not None:
            command[0](self)
        elif line.startswith("/") and line[1:].isalpha():
            raise UserError(f"{line} is no command", f"there are {', '.join(_COMMANDS)} and /quit")
        elif line:
            self.ask(line)
        return True

    def ask(self, question: str) -> None:
        from plume.chat import first_turn, turn

        if self.id is None:
            self._show(first_turn(self.engine, self.tenant, question, self.sampling, persona=self.persona))
            return
        how: dict[str, Any] = {"summary": self.summary, "recall": self._older(self.id)}
        self._show(turn(self.engine, self.tenant, self.id, question, self.sampling, **how))

    def regenerate(self) -> None:
        from plume.chat import regenerate

        if not self.sampling.temperature:
            output.note("note: greedy answers to the same question are the same: --set temperature=0.8 varies them")
        id = self._begun()
        how: dict[str, Any] = {"summary": self.summary, "recall": self._older(id)}
        self._show(regenerate(self.engine, self.tenant, id, self.sampling, **how))

    def undo(self) -> None:
        from plume.chat import undo

        removed = undo(self.tenant, self._begun())
        if self.json:
            output.write_json({"event": "removed", "items": [item.id for item in removed]})
        else:
            output.note(f"taken out: {removed[0].message.content}")

    def history(self) -> None:
        for item in self.tenant.read(self._begun()).items:
            if self.json:
                said = asdict(item.message)
                tools = {name: said[name] for name in ("tool_calls", "tool_call_id") if said[name]}
                message = {"id": item.id, "role": said["role"], "content": said["content"], **tools}
                output.write_json({"event": "message", **message})
            else:
                answers.show_message(item.message)

    def help(self) -> None:
        for name, (_, words) in _COMMANDS.items():
            output.note(f"{name:12} {words}")
        output.note(f"{'/quit':12} end; so does Ctrl-D")

    def _older(self, id: str) -> chats.Recall | None:
        return partial(self.recalls.positions, self.tenant.name, id) if self.recalls else None

    def _begun(self) -> str:
        if self.id is None:
            raise UserError("nothing has been asked in this conversation yet", "ask something first")
        return self.id

    def _show(self, events: Generator[chats.Event]) -> None:
        """The answer as it comes. Ctrl-C stops it before the next token, a second one ends the program."""
        chunks: list[Chunk] = []
        new = self.id is None
        with _stopping() as stopped, contextlib.closing(events):
            for event in events:
                if stopped():
                    break
                if isinstance(event, Chunk):
                    chunks.append(event)
                    self._chunk(event)
                else:
                    self._told(event)
        if not self.json and chunks:
            output.write("")
        if new and self.id is not None:
            output.note(f"conversation {self.id}")
        if not chunks or chunks[-1].finish is None:
            output.note("stopped: neither the question nor what there was of the answer is kept")
        elif chunks[-1].finish == "length":
            output.note(f"note: the answer was cut at {len(answers.ids(chunks))} tokens (--set max_new_tokens=N)")

    def _chunk(self, chunk: Chunk) -> None:
        if self.json:
            output.write_json({"event": "chunk", "text": chunk.text, "finish": chunk.finish})
        else:
            output.write(chunk.text, end="")

    def _told(self, event: chats.Told | chats.Kept) -> None:
        from plume.chat import Told

        if isinstance(event, Told):
            if self.json:
                output.write_json(output.event_json(event))
            if event.left_out:
                instead = "; a summary stands for them" if event.summarised else ""
                output.note(f"note: the oldest messages no longer fit: {event.left_out} left out{instead}")
            return
        self.id = event.conversation
        if self.json:
            kept = {"question": event.question.id, "answer": event.answer.id}
            output.write_json({"event": "kept", "conversation": self.id, **kept})


_COMMANDS: dict[str, tuple[Callable[[_Talk], None], str]] = {
    "/help": (_Talk.help, "show this"),
    "/history": (_Talk.history, "show what was said"),
    "/regenerate": (_Talk.regenerate, "answer the last question anew, in place of the old answer"),
    "/undo": (_Talk.undo, "take the last question and its answer out"),
}


def _lines(interactive: bool) -> Iterator[str]:
    """What the person types. The prompt stands on stdout only at a terminal."""
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    if not interactive:
        yield from (line.strip() for line in sys.stdin)
        return
    if not sys.stdout.isatty():
        while line := _prompted(sys.stdin.readline):
            yield line.strip()
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its line editing
    with contextlib.suppress(EOFError):
        while True:
            yield input(_PROMPT).strip()
    output.note("")


def _prompted(read: Callable[[], str]) -> str:
    sys.stderr.write(_PROMPT)
    sys.stderr.flush()
    return read()


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Says whether Ctrl-C was pressed; pressed again, it interrupts as ever."""
    pressed = False

    def once(*_: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, once)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _sampling(bundle: Bundle, chosen: Mapping[str, Any], *, json: bool) -> Sampling:
    """What was chosen over what the model brings, with what there is to say of both."""
    from plume.chat import default_sampling, one_answer
    from plume.generation.settings import check_for, make_sampling

    if not bundle.own_template:
        output.note("note: the model brings no chat template; the questions are given as raw text")
    sampling = one_answer(make_sampling(chosen, default_sampling(bundle)))
    check_for(sampling, bundle.model.vocab_size)
    answers.remarks(sampling, json=json)
    return sampling


def _settle_persona(tenant: Tenant, id: str, persona: str | None) -> None:
    """A conversation keeps the persona it began with. Raises UserError, also when there is no such conversation, and
    when its vault says that it cannot go on through this door."""
    from plume.cli.redacting import as_kept

    known = tenant.read(id, first=1)
    kept = Message("system", as_kept(tenant, id, persona or ""))
    if persona is None or (known.items and known.items[0].message == kept):
        return
    if known.head:
        raise UserError(f"conversation {id} has begun with another persona", "leave --persona out, or begin a new one")
    tenant.append(id, [Message("system", persona)], at=known.head)


def _recall(store: Store, bundle: Bundle) -> Recall:
    from plume.generation.embedder import model_embedder
    from plume.memory.recall.search import Recall

    return Recall(store, model_embedder(bundle))


def _outlives(store: Store) -> bool:
    """Whether what it keeps is there when this process has ended."""
    from plume.memory.in_memory.store import InMemoryStore

    return not isinstance(store, InMemoryStore)


def _command(model: str, given: Mapping[str, object], settings: Sequence[str]) -> list[str]:
    """What to type to go on, without the password of a URL."""
    from plume.data.sql import safe_name

    words = ["plume", "chat", model, *(word for pair in settings for word in ("--set", pair))]
    for option, value in given.items():
        if value is True:
            words.append(option)
        elif value:
            words += [option, safe_name(str(value))]
    return words
