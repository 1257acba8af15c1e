"""What can be put right without a guess, one row at a time. Every repair done twice is the repair done once."""

from __future__ import annotations

import ast
import html
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ftfy
import json_repair

from plume.data.json_text import canonical
from plume.redact import Marks, Names, redact, redact_json
from plume.types import Example, Message

Repair = Callable[[Example], Example | None]  # None: nothing sensible is left

_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_TAG = re.compile(
    r"</?(?:p|div|span|em|strong|b|i|u|font|center|li|ul|ol|h[1-6]|body|html)(?:\s[^<>]*)?>", re.IGNORECASE
)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,6}|#x[0-9a-fA-F]{2,5});")
_FENCE = re.compile(r"\s*```[ \t]*[\w+#-]*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_ESCAPE = re.compile(r"\\([_%&#])")
_NESTED = re.compile(r"&(?:(?:amp|#38|#x26);)+")
_NEXT = re.compile(
    r"\n[^\S\n]*(?:### ?\w+|(?:Question|User|Human|Q|Utilisateur) ?:)"
    r"|\n[^\S\n]*<\|(?:im_start|user|assistant|system|start_header_id)\|>"
)
_ECHO = 12  # characters; a shorter prompt may well begin its answer
_WORDS = re.compile(r"[^\W_]+")
_ESCAPES = re.compile(r'\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})|\b(?:NaN|Infinity)\b')
_PYTHON = re.compile(r"[\[{\s]*'")
_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|#[^\n]*', re.DOTALL)


def each(change: Callable[[str], str]) -> Repair:
    """A repair of every message by itself."""

    def repair(example: Example) -> Example | None:
        return _kept(example, [replace(message, content=change(message.content)) for message in example.messages])

    return repair


def _kept(example: Example, messages: Sequence[Message]) -> Example | None:
    """A message of which nothing is left leaves nothing of the row."""
    pairs = zip(example.messages, messages, strict=True)
    emptied = any(before.said.strip() and not after.said.strip() for before, after in pairs)
    return None if emptied else replace(example, messages=tuple(messages))


def replies(change: Callable[[str, str], str]) -> Repair:
    """A repair of every reply, given the words just before it."""

    def repair(example: Example) -> Example | None:
        messages: list[Message] = []
        for message in example.messages:
            before = messages[-1].content if messages else ""
            changed = change(before, message.content) if message.role == "assistant" else message.content
            messages.append(replace(message, content=changed))
        return _kept(example, messages)

    return repair


def unescaped(text: str) -> str:
    """With characters in the place of HTML entities, however often they were escaped."""
    before = None
    while before != text:
        before, text = text, _ENTITY.sub(lambda found: html.unescape(found[0]), _NESTED.sub("&", text))
    return text.strip()


def untagged(text: str) -> str:
    return _TAG.sub("", _BREAK.sub("\n", text)).strip()


def unfenced(text: str) -> str:
    fence = _FENCE.fullmatch(text)
    return fence[1].strip() if fence else text


def unechoed(prompt: str, reply: str) -> str:
    """Without the prompt at its beginning, unless nothing else is there."""
    asked, answer = prompt.strip(), reply.strip()
    rest = answer.removeprefix(asked)
    if len(asked) < _ECHO or " " not in asked or rest == answer or rest[:1].isalnum():
        return reply
    return rest.lstrip(" \n:.-—") or reply


def cut(_: str, reply: str) -> str:
    """Without the next turn at its end."""
    return _NEXT.split(reply, maxsplit=1)[0].rstrip()


@dataclass(frozen=True, slots=True)
class Affix:
    """What stands at one end of the messages of one role."""

    role: str
    last: bool
    text: str

    def removed(self, text: str) -> str:
        if self.text.isspace():
            kind = self.text if self.text in " \n\t" else None
            return text.rstrip(kind) if self.last else text.lstrip(kind)
        before = None
        while before != text:
            before, bare = text, text.rstrip()
            if bare.endswith(self.text) and (self.text[0] in "[<#-=→:>" or bare[: -len(self.text)][-1:].isspace()):
                text = bare[: -len(self.text)].rstrip()
        return text


def ended(affixes: Collection[Affix]) -> Repair:
    """Messages without what was found at the ends of some of them, and nothing else."""

    def repair(example: Example) -> Example | None:
        messages = []
        for message in example.messages:
            text = message.content
            for affix in affixes:
                text = affix.removed(text) if affix.role == message.role else text
            messages.append(replace(message, content=text))
        return _kept(example, messages)

    return repair


Orders = Mapping[tuple[str, frozenset[str]], tuple[str, ...]]
"""The usual order of the keys of an object, by its path and its set of keys."""


def ordered(orders: Orders) -> Repair:
    """JSON replies with their keys in the usual order; those that have it stay as they are, to the letter."""

    def sort(value: Any, path: str) -> Any:
        if isinstance(value, list):
            return [sort(item, f"{path}[]") for item in value]
        if not isinstance(value, dict):
            return value
        keys = orders.get((path, frozenset(value)), tuple(value))
        return {key: sort(value[key], f"{path}.{key}" if path else key) for key in keys}

    def change(_: str, reply: str) -> str:
        value = parsed(reply)
        if not isinstance(value, dict | list):
            return reply
        colon = ": " if '": ' in reply else ":"
        separators = (", " if colon == ": " else ",", colon)
        plain = json.dumps(value, ensure_ascii=False, separators=separators)
        new = json.dumps(sort(value, ""), ensure_ascii=False, separators=separators)
        same = sorted(_WORDS.findall(reply)) == sorted(_WORDS.findall(new))
        return new if new != plain and same else reply

    return replies(change)


def as_json(example: Example) -> Example | None:
    """Replies that are JSON, or can be made JSON without a letter lost; None when one cannot."""
    messages = []
    for message in example.messages:
        said = message.role == "assistant" and bool(message.content or not message.tool_calls)
        if said and not isinstance(parsed(message.content), dict | list):
            value = reread(message.content)
            if not isinstance(value, dict | list):
                return None
            message = replace(message, content=canonical(value))
        messages.append(message)
    return replace(example, messages=tuple(messages))


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def reread(text: str) -> Any:
    """The value that broken JSON can only have meant: read leniently, no word lost or added. None when in doubt."""
    stripped = text.strip().rstrip(",").strip()
    if not stripped or stripped[0] not in "{[":
        return None
    try:
        value = json.loads(stripped, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        if _PYTHON.match(stripped):
            return _literal(stripped)
        bare = _COMMENT.sub(lambda found: found[0] if found[0][0] == '"' else "", stripped)
        try:
            value = json_repair.loads(bare, skip_json_loads=True)
        except (ValueError, RecursionError, IndexError):
            return None
        if bare.rstrip()[-1:] not in "}]" or not isinstance(value, dict | list) or _ESCAPES.search(stripped):
            return None
        written = json.dumps(value, ensure_ascii=False).replace("\\n", " ").replace("\\t", " ")
        if _WORDS.findall(bare.replace("\\n", " ").replace("\\t", " ")) != _WORDS.findall(written):
            return None
    return value


def _literal(text: str) -> Any:
    """What Python printed, if that is what it is: its quotes are no guess."""
    try:
        value = ast.literal_eval(text)
        return json.loads(json.dumps(value, allow_nan=False)) if isinstance(value, dict | list) else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(name)


def private(kinds: Collection[str], names: Names, marks: Marks) -> Repair:
    """Marks in the place of personal data or secrets, the same for the same value in the whole file, also in what
    tools are called with."""

    def marked(message: Message) -> Message:
        content = redact(message.content, kinds, names, marks)
        calls = (replace(one, arguments=redact_json(one.arguments, kinds, names, marks)) for one in message.tool_calls)
        return replace(message, content=content, tool_calls=tuple(calls))

    return lambda example: _kept(example, [marked(message) for message in example.messages])


# What repairs one sort of fault of a row that has it, in the order of application.
REPAIRS: dict[str, Repair] = {
    "D107 garbled": each(lambda text: _CONTROL.sub("", ftfy.fix_encoding(text))),
    "D107 control": each(lambda text: _CONTROL.sub("", text)),
    "D107 invisible": each(lambda text: _INVISIBLE.sub("", text)),
    "D107 decomposed": each(lambda text: unicodedata.normalize("NFC", text)),
    "D108 entity": each(unescaped),
    "D108 tag": each(untagged),
    "D108 fence": each(unfenced),
    "D108 escape": each(lambda text: _ESCAPE.sub(r"\1", text)),
    "D206 echo": replies(unechoed),
    "D206 on": replies(cut),
    "D204 broken": as_json,
}
