"""Calls of tools in a template's text: how it writes them is found by letting it write one."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plume.types import CallSyntax, Message, ToolCall

_NAME, _KEY, _VALUE = "zqname", "zqkey", "zqvalue"
PROBE = (Message("user", "question"), Message("assistant", "", (ToolCall(_NAME, json.dumps({_KEY: _VALUE}), "call0"),)))
_WRITTEN = re.compile(
    rf'(.*?)\{{\s*"name":\s*"{_NAME}",\s*"(arguments|parameters)":\s*\{{\s*"{_KEY}":\s*"{_VALUE}"\s*\}}\s*\}}(.*)',
    re.DOTALL,
)


def syntax_of(reply: str, specials: Sequence[str]) -> CallSyntax | None:
    """The syntax of a reply rendered from `PROBE`, without its end token. None where the call is not written as an
    object between marks that are ordinary text: nobody could find such a call in an answer again."""
    found = _WRITTEN.fullmatch(reply)
    if found is None or not found[1].strip() or any(token in found[1] + found[3] for token in specials):
        return None
    return CallSyntax(found[1], found[3], found[2])


def parse(text: str, syntax: CallSyntax | None) -> Message:
    """A reply's text with the calls taken out of it; what only begins like a call stays text."""
    if syntax is None:
        return Message("assistant", text)
    mark, end = syntax.begin.strip(), syntax.end.strip()
    content, calls, place = "", [], 0
    while (begin := text.find(mark, place)) >= 0:
        found = _call(text, begin + len(mark), syntax.arguments)
        if found is None:
            content, place = content + text[place : begin + len(mark)], begin + len(mark)
            continue
        call, after = found
        calls.append(call)
        content += text[place:begin]
        after += len(text[after:]) - len(text[after:].lstrip())
        place = after + len(end) if end and text.startswith(end, after) else after
    content += text[place:]
    return Message("assistant", content.strip() if calls else content, tuple(calls))


def _call(text: str, start: int, key: str) -> tuple[ToolCall, int] | None:
    start += len(text[start:]) - len(text[start:].lstrip())
    try:
        value, after = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not isinstance(value.get(key), dict):
        return None
    return ToolCall(value["name"], json.dumps(value[key], ensure_ascii=False)), after


@functools.lru_cache(maxsize=64)  # the rows of a file often have the same
def tools_of(text: str) -> tuple[Mapping[str, Any], ...]:
    """The tools of an example, as templates are given them."""
    return tuple(json.loads(text)) if text else ()


def row_of(message: Message, guard: Callable[[str], str]) -> dict[str, Any]:
    """A message as Hugging Face's templates read it."""
    row: dict[str, Any] = {"role": message.role, "content": guard(message.content)}
    if message.tool_calls:
        row["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": guard(call.name), "arguments": guarded(_arguments(call), guard)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        row["tool_call_id"] = guard(message.tool_call_id)
    return row


def guarded(value: Any, guard: Callable[[str], str]) -> Any:
    """The same value with every text in it guarded."""
    if isinstance(value, str):
        return guard(value)
    if isinstance(value, Mapping):
        return {guard(key): guarded(one, guard) for key, one in value.items()}
    return [guarded(one, guard) for one in value] if isinstance(value, list | tuple) else value


def _arguments(call: ToolCall) -> Any:
    """The object itself, which templates write as JSON; what is none stays text."""
    try:
        return json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
