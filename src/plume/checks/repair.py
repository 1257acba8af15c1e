"""What can be put right without a guess, one row at a time. Every repair done twice is the repair done once."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import ftfy
import json_repair

from plume.data.json_text import canonical
from plume.redact import PERSONAL, SECRETS, redact
from plume.types import Example, Message

Repair = Callable[[Example], Example | None]  # None: nothing sensible is left

_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_HIGH_SPACE = re.compile("[ \u00a0\u202f](?=[?:;!»])|(?<=«)[ \u00a0\u202f]")
_TAG = re.compile(
    r"</?(?:p|div|span|em|strong|b|i|u|font|center|li|ul|ol|h[1-6]|body|html)(?:\s[^<>]*)?>", re.IGNORECASE
)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,6}|#x[0-9a-fA-F]{2,5});")
_FENCE = re.compile(r"\s*```[ \t]*[\w+#-]*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_ESCAPE = re.compile(r"\\([_%&#])")
_TERMINATOR = re.compile(r"\s*(?:###|->|→|<\|?(?:end|endoftext|im_end|eot_id)\|?>|</s>|\bEND|\[END\]|<EOS>|<eos>)\s*$")
_WORDS = re.compile(r"[^\W_]+")
_ESCAPES = re.compile(r'\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})|\b(?:NaN|Infinity)\b')
_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|#[^\n]*', re.DOTALL)


def each(change: Callable[[str], str]) -> Repair:
    """A repair of every message by itself; a message of which nothing is left leaves nothing of the row."""

    def repair(example: Example) -> Example | None:
        messages = tuple(replace(message, content=change(message.content)) for message in example.messages)
        return replace(example, messages=messages) if all(message.content.strip() for message in messages) else None

    return repair


def replies(change: Callable[[str, str], str]) -> Repair:
    """A repair of every reply, given the words just before it."""

    def repair(example: Example) -> Example | None:
        messages: list[Message] = []
        for message in example.messages:
            before = messages[-1].content if messages else ""
            changed = change(before, message.content) if message.role == "assistant" else message.content
            messages.append(replace(message, content=changed))
        kept = all(message.content.strip() for message in messages)
        return replace(example, messages=tuple(messages)) if kept else None

    return repair


def clean(text: str) -> str:
    """Valid characters, composed as NFC, without what cannot be seen."""
    fixed = ftfy.fix_encoding(unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", _CONTROL.sub("", _INVISIBLE.sub("", fixed)))


def spaced(text: str) -> str:
    """With a non-breaking space wherever French typography has a space before a mark or inside guillemets."""
    return _HIGH_SPACE.sub("\u00a0", text)


def unmarked(text: str) -> str:
    """Without HTML entities and tags, LaTeX escapes, and the fence round the whole."""
    fence = _FENCE.fullmatch(text)
    inner = fence[1] if fence else text
    inner = _TAG.sub("", _BREAK.sub("\n", inner))
    return _ESCAPE.sub(r"\1", _ENTITY.sub(lambda found: html.unescape(found[0]), inner)).strip()


def unechoed(prompt: str, reply: str) -> str:
    """Without the prompt at its beginning and the next question at its end."""
    rest = reply.removeprefix(prompt).lstrip(" \n:.-—") if prompt else reply
    return re.split(r"\n\s*(?:### ?\w+|Question|User|Human|Q|Utilisateur) ?:", rest or reply)[0].rstrip()


def ended(affixes: Collection[str] = ()) -> Repair:
    """Messages without white space around them, terminators written as text, and what else was found at their ends."""
    known = sorted({affix.strip() for affix in affixes} - {""}, key=len, reverse=True)

    def repair(text: str) -> str:
        before = None
        while before != text:
            before, text = text, _TERMINATOR.sub("", text).strip()
            for affix in known:
                text = text.removesuffix(affix).removeprefix(affix)
        return text

    return each(repair)


def ordered(_: str, reply: str) -> str:
    """A JSON object or array in canonical form; other text as it is."""
    value = parsed(reply)
    return canonical(value) if isinstance(value, dict | list) else reply


def as_json(example: Example) -> Example | None:
    """Replies that are JSON, or can be made JSON without a letter lost; None when one cannot."""
    messages = []
    for message in example.messages:
        if message.role == "assistant" and not isinstance(parsed(message.content), dict | list):
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


def _refuse(name: str) -> None:
    raise ValueError(name)


def private(kinds: tuple[str, ...]) -> Callable[[], Repair]:
    """Marks in the place of personal data or secrets, the same for the same value in the whole file."""

    def made() -> Repair:
        marks: dict[tuple[str, str], str] = {}
        return each(lambda text: redact(text, kinds, marks=marks))

    return made


# What repairs a code, in the order of application; each is made anew for a file.
REPAIRS: dict[str, Callable[[], Repair]] = {
    "D107": lambda: each(clean),
    "D108": lambda: each(unmarked),
    "D206": lambda: replies(unechoed),
    "D208": lambda: ended(),
    "D204": lambda: as_json,
    "D205": lambda: replies(ordered),
    "D210": private(tuple(PERSONAL)),
    "D211": private(tuple(SECRETS)),
}
