"""The values that travel along the road, and the protocols of what carries them.

Values are frozen; identity, order and time belong to whoever stores them. No import here needs torch.
Shape suffixes: B batch, T time, C hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Role = Literal["system", "user", "assistant", "tool"]
Severity = Literal["error", "warning", "info"]
FinishReason = Literal["stop", "length", "cancelled"]
EvaluationKind = Literal["held_out", "recall"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where something stands: a file as the person named it, and 1-based physical line and column."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that a reply asks for; `arguments` is the text of a JSON object."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; the content is always text. A reply may call tools, and a turn of the role `tool`
    is the result of the call whose id it names. A reply of `weight` 0 is read but not learnt."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    weight: int = 1

    @property
    def said(self) -> str:
        """The content and the calls: what tells two turns of one role apart."""
        if not self.tool_calls:
            return self.content
        return "\n".join([self.content, *(f"{call.name} {call.arguments}" for call in self.tool_calls)]).lstrip("\n")


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """How a template writes a call: `begin`, an object with the name under `name` and the arguments under the key
    `arguments`, `end`."""

    begin: str
    end: str
    arguments: str


class Turn(NamedTuple):
    """A reply together with everything said before it, and the tools it may call."""

    history: tuple[Message, ...]
    reply: Message
    tools: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation to learn. A prompt/completion row is user + assistant, plain text is assistant alone.

    `cut` marks a stretch of a longer text: it does not end where it ends, so no end token is learnt there. `tools` is
    the JSON text of the functions that replies may call, as OpenAI lists them; empty for none.
    """

    messages: tuple[Message, ...]
    source: Source
    cut: bool = False
    tools: str = ""

    @property
    def is_text(self) -> bool:
        """Plain text has no prompt: all of it is learnt and any stretch of it is worth learning."""
        return len(self.messages) == 1

    def turns(self) -> Iterator[Turn]:
        """Every reply that is learnt with its own history, in order."""
        for position, message in enumerate(self.messages):
            if message.role == "assistant" and message.weight:
                yield Turn(self.messages[:position], message, self.tools)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and, for each, whether the loss counts it. Both have the same length."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check has to say about one place; `related` are the other rows concerned.

    `quote` is the offending text exactly as it stands in the row, for a caret to point at.
    """

    code: str
    severity: Severity
    source: Source
    message: str
    hint: str
    related: tuple[Source, ...] = ()
    quote: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy; names and meanings are transformers', and OpenAI's for
    `presence_penalty`, `frequency_penalty`, `logit_bias`, `n` and `best_of`.

    `no_repeat_ngram_size` counts the reply alone, `encoder_no_repeat_ngram_size` forbids what the prompt has already.
    `logprobs` is how many alternatives are reported beside each token, None for no report. `prompt_lookup_num_tokens`
    guesses that many tokens ahead from what was read and lets the model confirm them: faster, the same answer.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    n: int = 1
    best_of: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    prompt_lookup_num_tokens: int = 0
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token with its natural log-probability under the model itself (before temperature, filters and
    constraints), and the likeliest tokens there, best first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer: text that is final, the ids behind it, and why it ended on the last piece.

    `choice` counts the answers to one prompt when `n` of them are asked for.
    """

    text: str
    ids: tuple[int, ...]
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: what `Engine.generate` returns for one prompt."""

    text: str
    ids: tuple[int, ...]
    finish: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher-forced likelihood of one reply: summed negative log-likelihood in nats.

    `loss` covers `tokens` tokens, the end token included; `text_loss` only the tokens that stand for the
    `bytes` bytes of the reply's text, so that bits per byte compare across tokenizers that know all of it.
    """

    loss: float
    tokens: int
    text_loss: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Scored:
    """One reply of an evaluated file: what was asked, what was expected, what was answered, how good it is.

    A score is None where the row cannot have it: plain text is not asked, `json_valid` needs a reference that
    is JSON, `schema_valid` a schema. An answer that did not stop by itself is no exact match.
    """

    source: Source
    turn: int
    prompt: str
    reference: str
    answer: str
    exact_match: bool | None
    token_f1: float | None
    json_valid: bool | None
    schema_valid: bool | None
    stopped: bool | None
    likelihood: Score
    history: tuple[Message, ...] = field(default=(), repr=False)


# --- protocols -----------------------------------------------------------------------------------


class Tokenizer(Protocol):
    """Text to ids and back. `decode(encode(text)) == text` up to Unicode NFC for every kind without unknowns."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def special_tokens(self) -> Mapping[str, int]: ...
    @property
    def special_token_names(self) -> Mapping[str, str]: ...
    def encode(self, text: str, *, add_special_tokens: bool = False, specials: bool = False) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def token_bytes(self, id: int) -> bytes: ...
    @property
    def prepends_space(self) -> bool: ...
    def save(self, directory: Path, *, chat_template: str | None = None) -> None: ...


class Template(Protocol):
    """The only way from messages to ids. `stop` are the token texts that end a reply; `persona` is the system turn that
    it adds to a conversation without one, if it is known to add any."""

    @property
    def source(self) -> str: ...
    @property
    def persona(self) -> str | None: ...
    @property
    def stop(self) -> tuple[str, ...]: ...
    @property
    def call_syntax(self) -> CallSyntax | None: ...
    def encode(
        self,
        messages: Sequence[Message],
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        reply: bool = False,
    ) -> Encoded: ...
    def parse(self, text: str) -> Message: ...


class State(Protocol):
    """What a model remembers of the tokens it has read, one row a sequence. Opaque, and consumed by the
    call it is given to: `fork` it first to use it twice. `select` may repeat and reorder rows; `join` puts another
    state's rows behind its own; both consume what they are called on. `nbytes` are the bytes it really holds."""

    @property
    def nbytes(self) -> int: ...
    def select(self, rows: Tensor) -> State: ...
    def join(self, other: Any) -> State: ...
    def fork(self) -> State: ...
    def truncate(self, n: int) -> State: ...


class LanguageModel(Protocol):
    """`hidden_BTC, state = model(ids_BT, state, lengths_B, segments_BT)`; `head` turns hidden states into logits.

    `lengths_B` gives the number of real tokens of each right-padded row of this call; the state afterwards
    is that after those tokens, whatever the padding. `segments_BT` numbers the documents packed in a row, each
    another number than its neighbour: where it changes, reading begins anew, so a token sees its own document alone
    and positions count from its start. A packed call takes no state, and what it returns for one is worth nothing;
    nor need a model in training keep one. `state_nbytes` is an upper bound of what one row's state holds after
    that many tokens, known before any is read.
    """

    training: bool

    @property
    def vocab_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    def state_nbytes(self, tokens: int) -> int: ...
    def __call__(
        self, ids_BT: Tensor, state: Any = None, lengths_B: Tensor | None = None, segments_BT: Tensor | None = None
    ) -> tuple[Tensor, State]: ...
    def head(self, hidden: Tensor) -> Tensor: ...
    def parameters(self) -> Iterator[torch.nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]: ...
    def state_dict(self, *, keep_vars: bool = False) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...
    def save(self, directory: Path) -> None: ...


class Constraint(Protocol):
    """Where one answer stands in what it may say.

    `allowed_V` are the ids (V,) after which it can still be completed, those that end a reply only where it is
    `accepting`, that is complete as it stands. `done` says that nothing more may follow. `shortest_end` gives ids that
    complete it from here, the fewest known, none when it is complete; `fits` says whether after `id` such an ending
    of at most `room` tokens is known. `advance` takes the chosen id, never one that ends the reply.
    """

    @property
    def accepting(self) -> bool: ...
    @property
    def done(self) -> bool: ...
    def allowed_V(self) -> Tensor: ...
    def advance(self, id: int) -> None: ...
    def shortest_end(self) -> Sequence[int]: ...
    def fits(self, id: int, room: int) -> bool: ...
    def fork(self) -> Constraint: ...


class Grammar(Protocol):
    """What an answer may say, compiled for one tokenizer. `shortest` is how many tokens its shortest known answer
    has; `valid` asks an independent judge about a whole answer; `notes` say what was asked for and means nothing."""

    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def shortest(self) -> int: ...
    def start(self) -> Constraint: ...
    def valid(self, text: str) -> bool: ...
