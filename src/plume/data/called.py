"""Tools in a row, as OpenAI's fine-tuning files have them: the functions that may be called, the calls that replies
make, and that every call has its result."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from plume.types import Finding, Message, Source, ToolCall

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KINDS = {
    "name": str,
    "description": str,
    "parameters": dict,
    "strict": bool,
}  # in the order in which servers show them
_TOOL = 'write {"type": "function", "function": {"name": "…", "parameters": {…}}}'
_CALL = 'write {"id": "…", "type": "function", "function": {"name": "…", "arguments": "{…}"}}'


def read_tools(given: Any, source: Source) -> tuple[str, list[Finding]]:
    """The functions as JSON text, empty where there are none."""
    if given is None:
        return "", []
    if not isinstance(given, list):
        return "", [_wrong(source, '"tools" must be an array', f"of functions: {_TOOL}")]
    found: list[dict[str, Any]] = []
    for place, tool in enumerate(given):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or tool.keys() != {"type", "function"} or not _is_function(function):
            return "", [_wrong(source, f"tools[{place}] is no function that a model can be shown", _TOOL)]
        told = {key: function[key] for key in _KINDS if function.get(key) is not None}
        found.append({"type": "function", "function": told})
    names = [tool["function"]["name"] for tool in found]
    if len(set(names)) < len(names):
        return "", [_wrong(source, "two of the tools have the same name", "give each a name of its own")]
    try:
        return json.dumps(found, ensure_ascii=False, allow_nan=False) if found else "", []
    except (ValueError, RecursionError):
        return "", [_wrong(source, '"tools" holds what JSON cannot', "write numbers within a double's range")]


def _is_function(function: dict[str, Any]) -> bool:
    return (
        function.keys() <= _KINDS.keys()
        and isinstance(function.get("name"), str)
        and _NAME.fullmatch(function["name"]) is not None
        and all(isinstance(value, _KINDS[key]) for key, value in function.items() if value is not None)
    )


def read_calls(given: Any, where: str, source: Source) -> tuple[tuple[ToolCall, ...], list[Finding]]:
    """The calls of a reply."""
    if given is None:
        return (), []
    if not isinstance(given, list) or not given:
        return (), [_wrong(source, f"{where} must be an array of calls", _CALL)]
    found = []
    for place, call in enumerate(given):
        function = (
            call.get("function") if isinstance(call, dict) and call.get("type", "function") == "function" else None
        )
        if not isinstance(function, dict) or not all(
            isinstance(one, str) for one in (function.get("name"), call.get("id"))
        ):
            return (), [_wrong(source, f"{where}[{place}] is no call of a function", _CALL)]
        arguments = function.get("arguments")
        try:
            text = (
                arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, allow_nan=False)
            )
            is_object = isinstance(json.loads(text), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            place_of_it = f"{where}[{place}].function.arguments"
            return (), [
                _wrong(source, f"{place_of_it} is not the text of a JSON object", 'write "{…}", or "{}" for none')
            ]
        found.append(ToolCall(function["name"], text, call["id"]))
    return tuple(found), []


def call_faults(messages: Sequence[Message], tools: str, parallel: Any, source: Source) -> list[Finding]:
    """Whether what is called is known, every call has one result, and every result its call."""
    names = {tool["function"]["name"] for tool in json.loads(tools)} if tools else set()
    waiting: set[str] = set()

    def wrong(message: str, hint: str) -> list[Finding]:
        return [Finding("D110", "error", source, message, hint)]

    if not isinstance(parallel, bool | None):
        return [_wrong(source, '"parallel_tool_calls" must be true or false', "leave it out, or write one of these")]
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                return wrong(f"{where} is the result of no call before it", "name the id of a call just made")
            waiting.remove(message.tool_call_id)
        elif waiting:
            return wrong(f"{where} stands where the result of a call is due", "give every call its result first")
        for call in message.tool_calls:
            if call.name not in names:
                return wrong(f'{where} calls "{call.name[:80]}", which the row does not offer', 'list it in "tools"')
        waiting |= {call.id for call in message.tool_calls}
        if len(waiting) < len(message.tool_calls):
            return wrong(f"two calls of {where} have the same id", "give each an id of its own")
        if parallel is False and len(message.tool_calls) > 1:
            return wrong(f"{where} makes several calls, and parallel_tool_calls is false", "make one of these true")
    return []


def _wrong(source: Source, message: str, hint: str) -> Finding:
    return Finding("D104", "error", source, message, hint)


def written(message: Message) -> dict[str, Any]:
    """A turn as a row has it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["content"] = message.content or None
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn if message.weight else {**turn, "weight": 0}
