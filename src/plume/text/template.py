"""Templates: the only way from messages to ids, for training, scoring, asking and serving alike.

A template is a Hugging Face chat template. The ids of a prompt are a prefix of the ids of prompt + reply by
construction: the rendered text is cut where replies begin and end, and each piece is encoded by itself.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from plume.errors import UserError
from plume.text import calls
from plume.types import CallSyntax, Encoded, Example, Message, Template, Tokenizer

CHAT = """\
{{- bos_token -}}
{%- set tools = tools | default([], true) -%}
{%- if tools -%}
{%- set begun = messages and messages[0].role == 'system' -%}
<|system|>{{ messages[0].content + '\\n\\n' if begun }}<tools>{{ '\\n' }}
{%- for tool in tools -%}{{ tool | tojson }}{{ '\\n' }}{%- endfor -%}
</tools>
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|>{% generation %}{{ message.content }}
{%- for call in message.tool_calls | default([], true) -%}
{{ '\\n' if message.content or not loop.first }}<tool_call>{{ '\\n' }}
{{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}{{ '\\n' }}</tool_call>
{%- endfor -%}
{{ eos_token }}{% endgeneration %}
{%- elif message.role == 'tool' -%}
<|user|><tool_response>{{ '\\n' }}{{ message.content }}{{ '\\n' }}</tool_response>
{%- elif not (tools and loop.first and message.role == 'system') -%}
<|{{ message.role }}|>{{ message.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
SEP = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
{%- else -%}
{{- message.content }}{{ sep_token -}}
{%- endif -%}
{%- endfor -%}
"""
RAW = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
{%- else -%}
{{- message.content }}{{ '\\n' -}}
{%- endif -%}
{%- endfor -%}
"""
PERSONA_FILE = "persona.txt"
TEMPLATES = {"chat": CHAT, "sep": SEP, "raw": RAW}

# A system turn that the template adds where a conversation begins without one: the way of Hugging Face's templates.
_PERSONA = (
    "{{%- if not messages or messages[0].role != 'system' %}}"
    "{{%- set messages = [{{'role': 'system', 'content': {}}}] + messages %}}{{%- endif %}}"
)
_WITH_PERSONA = re.compile(re.escape(_PERSONA.format("\0")).replace("\0", r'("(?:[^"\\]|\\.)*")'))

# Unicode noncharacters: they stand in no text, and mark places in a rendering until it is cut.
_BEGIN, _END, _BREAK = "\ufdd1", "\ufdd2", "\ufdd3"
_NO_MARKS = dict.fromkeys(map(ord, (_BEGIN, _END, _BREAK)))


_MARK_HINT = "mark the assistant's text with {% generation %} … {% endgeneration %} in chat_template.jinja"


_Row = dict[str, Any]
_Fill = Callable[[Sequence[_Row], bool], str]


class _Span(NamedTuple):
    start: int
    end: int


class ChatTemplate:
    """A chat template with the tokenizer's special tokens bound; implements `plume.types.Template`."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """`tokenizer` says which special tokens there are and what the template may call them."""
        self.source = source
        self._variables = dict(tokenizer.special_token_names)
        self._specials = tuple(tokenizer.special_tokens)
        try:
            self._compiled = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template does not compile: {error}", "correct chat_template.jinja") from None
        said = _WITH_PERSONA.match(source)
        self._own = source[said.end() if said else 0 :] in TEMPLATES.values()
        self.persona: str | None = json.loads(said[1]) if said else None
        self._marked = re.search(r"\{%-?\s*generation\s*-?%\}", source) is not None

    @functools.cached_property
    def stop(self) -> tuple[str, ...]:
        """Text of the token that ends a reply, found by rendering one."""
        text, spans = self._render((Message("user", "question"), Message("assistant", "answer")), reply=False)
        return (max((token for token in self._specials if text[: spans[-1].end].endswith(token)), key=len),)

    @functools.cached_property
    def call_syntax(self) -> CallSyntax | None:
        """How a reply calls a tool; None when the template has no way to say it that can be read back."""
        try:
            text, spans = self._render(calls.PROBE, reply=False)
        except UserError:
            return None
        return calls.syntax_of(text[spans[-1].start : spans[-1].end].removesuffix(self.stop[0]), self._specials)

    def parse(self, text: str) -> Message:
        """A reply's text as a message, with the calls that stand in it."""
        return calls.parse(text, self.call_syntax)

    def encode(
        self,
        messages: Sequence[Message],
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        reply: bool = False,
    ) -> Encoded:
        """Ids and mask of a conversation; with `reply` it ends where the assistant is to speak. `tools` are functions
        in OpenAI's form.

        Raises UserError when the template cannot say calls or tools, or (D309) does not let replies be told from
        prompts.
        """
        said = any(message.tool_calls or message.role == "tool" for message in messages)
        if (tools or said) and self.call_syntax is None:
            raise UserError(
                "the model's chat template has no way to write calls of tools", "leave tools out, or take another model"
            )
        text, spans = self._render(messages, tools, reply=reply)
        weights = [message.weight > 0 for message in messages if message.role == "assistant"]
        ids: list[int] = []
        trained: list[bool] = []
        position = 0
        for span, counts in zip((*spans, _Span(len(text), len(text))), (*weights, False), strict=True):
            for piece, learnt in ((text[position : span.start], False), (text[span.start : span.end], counts)):
                found = _encode_piece(piece, tokenizer)
                ids += found
                trained += [learnt] * len(found)
            position = span.end
        return Encoded(tuple(ids), tuple(trained))

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, reply: bool
    ) -> tuple[str, list[_Span]]:
        """The rendered text and where in it the replies stand, each up to and with its end token."""
        guard = _guard(self._specials)
        rows = [calls.row_of(message, guard) for message in messages]
        fill = functools.partial(self._fill, [calls.guarded(tool, guard) for tool in tools])
        text, marked = _take_marks(fill(rows, reply))
        replies = [position for position, row in enumerate(rows) if row["role"] == "assistant"]
        if self._marked and len(marked) != len(replies):
            raise UserError("D309: the chat template marks other text than the replies as generated", _MARK_HINT)
        spans = []
        for number, position in enumerate(replies):
            # A foreign template's marks are not to be trusted; ours stand where the text that asks for a reply ends.
            start = marked[number].start if self._own else self._reply_start(fill, rows[:position], text)
            end = marked[number].end if self._marked else self._reply_end(fill, rows[: position + 1], text, start)
            spans.append(_with_end_token(text, _Span(start, max(start, end)), self._specials))
        return text, spans

    def _reply_start(self, fill: _Fill, before: Sequence[_Row], text: str) -> int:
        """A reply begins where the text that asks for it ends, whatever the template's author marked."""
        asked, _ = _take_marks(fill(before, True))
        if not text.startswith(asked):
            raise UserError(
                "D309: the chat template renders a prompt that is not a prefix of prompt + reply", _MARK_HINT
            )
        return len(asked)

    def _reply_end(self, fill: _Fill, until: Sequence[_Row], text: str, start: int) -> int:
        """Without marks, a reply is the content, which must stand unchanged where it is due, and ends with its calls,
        if there are any, where the whole text with it ends."""
        content = until[-1]["content"].strip()
        space = len(text[start:]) - len(text[start:].lstrip())
        whole = fill(until, False).rstrip() if "tool_calls" in until[-1] else ""
        if not text.startswith(content, start + space) or not text.startswith(whole):
            raise UserError("D309: the chat template changes the text of a reply", _MARK_HINT)
        return max(start + space + len(content), len(whole))

    def _fill(self, tools: Sequence[Mapping[str, Any]], rows: Sequence[_Row], reply: bool) -> str:
        values = {"messages": rows, "tools": tools or None, "add_generation_prompt": reply}
        try:
            return self._compiled.render(values, **self._variables)
        except jinja2.TemplateError as error:
            hint = "the model's template does not accept such a conversation (system turn, order of roles)"
            raise UserError(f"the chat template refuses the messages: {error}", hint) from None


def with_persona(template: ChatTemplate, tokenizer: Tokenizer, persona: str) -> ChatTemplate:
    """The template with a system turn before every conversation that brings none. Raises UserError for one that would
    forge turns: the text of a template is not guarded as that of a message is."""
    if forged := [token for token in tokenizer.special_tokens if token in persona]:
        raise UserError(f"the persona holds {forged[0]}, which is a mark of the template", "take it out of the text")
    said = json.dumps(persona, ensure_ascii=False)
    return ChatTemplate(_PERSONA.format(said) + _WITH_PERSONA.sub("", template.source, count=1), tokenizer)


def personified(template: ChatTemplate, tokenizer: Tokenizer, directory: Path) -> ChatTemplate:
    """The template with the persona that a person put into the model's directory, if there is one."""
    file = directory / PERSONA_FILE
    return with_persona(template, tokenizer, read_persona(file)) if file.is_file() else template


def read_persona(file: Path) -> str:
    """The text of a persona, without the blank space around it. Raises UserError for a file that holds none."""
    if not file.is_file():
        raise UserError(f"there is no file {file}", "write into one who the model is")
    try:
        text = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: {error.reason}", "save it as UTF-8") from None
    if not text:
        raise UserError(f"{file} is empty: it should say who the model is", "write that into it, or remove it")
    return text


def encode_example(example: Example, template: Template, tokenizer: Tokenizer) -> Encoded:
    """A whole example; a stretch cut from a longer text comes without the end token."""
    whole = template.encode(example.messages, tokenizer, calls.tools_of(example.tools))
    return Encoded(whole.ids[:-1], whole.trained[:-1]) if example.cut else whole


def _with_end_token(text: str, span: _Span, specials: tuple[str, ...]) -> _Span:
    """A reply ends with its end token, whether or not the template's author marked it."""
    if any(text[: span.end].endswith(token) for token in specials):
        return span
    rest = text[span.end :]
    space = len(rest) - len(rest.lstrip())
    following = [token for token in specials if rest.startswith(token, space)]
    if not following:
        raise UserError(
            "D309: the chat template ends a reply without any end token, so no model can learn to stop",
            "write {{ eos_token }} after the assistant's content in chat_template.jinja",
        )
    return _Span(span.start, span.end + space + len(max(following, key=len)))


def _encode_piece(piece: str, tokenizer: Tokenizer) -> list[int]:
    """Special tokens written by the template count as such; those broken by the guard do not."""
    return [id for part in piece.split(_BREAK) if part for id in tokenizer.encode(part, specials=True)]


@functools.lru_cache(maxsize=64)
def _guard(specials: tuple[str, ...]) -> Callable[[str], str]:
    """Break every special token's text inside a message, and drop our marks, so that nobody forges a turn."""
    if not specials:
        return lambda content: content.translate(_NO_MARKS)
    pattern = re.compile("|".join(re.escape(token) for token in sorted(specials, key=len, reverse=True)))
    return lambda content: pattern.sub(
        lambda match: match.group()[0] + _BREAK + match.group()[1:], content.translate(_NO_MARKS)
    )


def _take_marks(marked: str) -> tuple[str, list[_Span]]:
    pieces: list[str] = []
    spans: list[_Span] = []
    length = start = 0
    for piece in re.split(f"([{_BEGIN}{_END}])", marked):
        if piece == _BEGIN:
            start = length
        elif piece == _END:
            spans.append(_Span(start, length))
        else:
            pieces.append(piece)
            length += len(piece)
    return "".join(pieces), spans


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}`: Hugging Face's marks around what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body, lineno=line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return f"{_BEGIN}{caller()}{_END}"


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    """The environment in which transformers renders chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **rest: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **rest)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
