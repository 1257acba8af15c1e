"""One JSON value becomes one example, or the findings that say why it cannot."""

from __future__ import annotations

import difflib
import functools
import re
from typing import Any

from plume.data.called import call_faults, read_calls, read_tools
from plume.data.fields import MESSAGES, PAIR, PARALLEL, TOOLS, Form
from plume.data.json_text import canonical
from plume.types import Example, Finding, Message, Role, Source

_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
_PLAIN = {"role", "content", "from", "value"}
_NO_CHARACTER = re.compile("[\ud800-\udfff\ufdd0-\ufdef]")
_SHARE_GPT: dict[str, Role] = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
SHAPE = '{"prompt": "…", "completion": "…"} or {"messages": [{"role": "user", "content": "…"}, …]}'


def to_example(value: Any, form: Form, source: Source) -> tuple[Example | None, list[Finding]]:
    """The example of a row (None when an error stands in the findings) and all there is to say about it."""
    if form.simple and (plain := _plain_pair(value, form)):
        return Example(plain, source), []
    if not isinstance(value, dict):
        message = f"a row must be an object, not {_kind(value)}"
        return None, [Finding("D104", "error", source, message, f"write {SHAPE}")]
    if not form.named and "messages" in value and ("prompt" in value or "completion" in value):
        message = 'the row has both "messages" and "prompt"/"completion"'
        return None, [Finding("D106", "error", source, message, "keep one of the two forms")]
    tools = ""
    if form.messages and form.messages in value:
        messages, findings = _conversation(value[form.messages], form.messages, source)
        if not _fatal(findings):
            tools, found = read_tools(value.get(TOOLS), source)
            findings += found or call_faults(messages, tools, value.get(PARALLEL), source)
    elif form.text:
        messages, findings = _plain(value, form, source)
    else:
        messages, findings = _pair(value, form, source)
    if _fatal(findings):
        return None, findings
    return Example(messages, source, tools=tools), findings


def _fatal(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _plain_pair(value: Any, form: Form) -> tuple[Message, Message] | None:
    """The two messages of a row of which there is nothing to say, as nearly all are."""
    if type(value) is not dict or "messages" in value:
        return None
    prompt, completion = value.get(form.prompt), value.get(form.completion)
    if type(prompt) is not str or type(completion) is not str:
        return None
    for text in (prompt, completion):
        if not text or text.isspace() or not (text.isascii() or _NO_CHARACTER.search(text) is None):
            return None
    return Message("user", prompt), Message("assistant", completion)


def _plain(row: dict[str, Any], form: Form, source: Source) -> tuple[tuple[Message, ...], list[Finding]]:
    if form.text not in row:
        return (), [_missing(form.text, row, form, source)]
    text, findings = _text(row[form.text], form.text, source, structured=False)
    return (Message("assistant", text),), findings


def _pair(row: dict[str, Any], form: Form, source: Source) -> tuple[tuple[Message, ...], list[Finding]]:
    asked, answered = form.prompt or PAIR.prompt, form.completion or PAIR.completion
    if form.messages or (asked not in row and answered not in row and _near("messages", tuple(row))):
        return (), [_missing(form.messages or "messages", row, form, source)]
    findings = [_missing(name, row, form, source) for name in (asked, answered) if name not in row]
    texts = []
    for name in (asked, answered):
        text = ""
        if name in row:
            text, found = _text(row[name], name, source, structured=name == answered)
            findings += found
        texts.append(text)
    extra = row.get(form.context) if form.context else None
    if isinstance(extra, str) and extra.strip():
        text, found = _well_formed(extra, form.context, source)
        findings += found
        texts[0] += f"\n\n{text}"
    elif extra is not None and not isinstance(extra, str):
        message = f'"{form.context}" must be a string, not {_kind(extra)}'
        findings.append(Finding("D104", "error", source, message, "put it between double quotes"))
    return (Message("user", texts[0]), Message("assistant", texts[1])), findings


def _conversation(value: Any, column: str, source: Source) -> tuple[tuple[Message, ...], list[Finding]]:
    if not isinstance(value, list):
        message = f'"{column}" must be an array, not {_kind(value)}'
        return (), [Finding("D104", "error", source, message, f"write {SHAPE}")]
    messages: list[Message] = []
    findings: list[Finding] = []
    for position, turn in enumerate(value):
        name = f"{column}[{position}]"
        if not isinstance(turn, dict):
            message = f"{name} must be an object, not {_kind(turn)}"
            findings.append(Finding("D104", "error", source, message, 'write {"role": "…", "content": "…"}'))
            continue
        said, words = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
        calls = said == "role" and turn.get("tool_calls") is not None  # then it need not say anything
        absent = [name for name in (said, words) if name not in turn and not (calls and name == words)]
        if absent:
            findings += [_missing(field, turn, MESSAGES, source, f"{name}: ") for field in absent]
            continue
        role = turn[said]
        if said == "from" and isinstance(role, str):
            role = _SHARE_GPT.get(role, role)
        if role not in _ROLES:
            shown = role[:80] if isinstance(role, str) else ""
            near = difflib.get_close_matches(shown, _ROLES, 1)
            hint = f'did you mean "{near[0]}"?' if near else "the roles are system, user, assistant and tool"
            what = f"the unknown role {shown!r}" if isinstance(role, str) else f"{_kind(role)} as role"
            findings.append(Finding("D110", "error", source, f"{name} has {what}", hint))
            continue
        text, found = "", list[Finding]()
        if not (calls and role == "assistant" and turn.get(words) in (None, "")):
            text, found = _text(turn[words], f"{name}.{words}", source, structured=role in ("assistant", "tool"))
        findings += found
        if turn.keys() <= _PLAIN:
            messages.append(Message(role, text))
        else:
            made, found = _turn(role, text, turn, name, source)
            findings += found
            messages.append(made)
    if not _fatal(findings):
        findings += _order(messages, source)
    return tuple(messages), findings


def _turn(role: Role, text: str, turn: dict[str, Any], name: str, source: Source) -> tuple[Message, list[Finding]]:
    """A turn that says more than who says what."""
    calls, findings = read_calls(turn.get("tool_calls"), f"{name}.tool_calls", source)
    if calls and role != "assistant":
        message = f"{name} calls tools, and is from the {role}"
        findings.append(Finding("D110", "error", source, message, "let the assistant call them"))
    weight, call_id = turn.get("weight", 1), turn.get("tool_call_id")
    if type(weight) is not int or weight not in (0, 1):
        findings.append(Finding("D104", "error", source, f"{name}.weight must be 0 or 1", "0 for what is not learnt"))
    elif not weight and role != "assistant":
        message = f"{name}.weight is 0: what the {role} says is never learnt"
        findings.append(Finding("D110", "warning", source, message, "leave it out"))
    return Message(
        role, text, calls, call_id if role == "tool" else None, 1 if role != "assistant" else weight
    ), findings


def _order(messages: list[Message], source: Source) -> list[Finding]:
    """An optional system turn first, then user and assistant in turn, ending on the assistant; results of calls stand
    between replies."""

    def wrong(message: str, hint: str) -> list[Finding]:
        return [Finding("D110", "error", source, message, hint)]

    if not any(message.role == "assistant" for message in messages):
        return wrong("the conversation has no assistant turn: there is nothing to learn", "add the reply")
    if not any(message.weight for message in messages if message.role == "assistant"):
        return wrong("every reply has the weight 0: there is nothing to learn", "give one the weight 1")
    expected: Role = "user"
    for position, message in enumerate(messages):
        if message.role == "system":
            if position:
                return wrong(f"messages[{position}] is a system turn in mid-conversation", "put it first")
            continue
        if message.role == "tool":
            continue
        if message.role != expected:
            return wrong(
                f"messages[{position}] is from the {message.role} where the {expected}'s is due",
                "let user and assistant take turns; merge neighbours of the same role",
            )
        expected = "assistant" if message.role == "user" or message.tool_calls else "user"
    if messages[-1].role != "assistant":
        return wrong("the conversation ends without a reply", "add the assistant's reply, or drop the last turn")
    return []


def _text(value: Any, name: str, source: Source, *, structured: bool) -> tuple[str, list[Finding]]:
    if isinstance(value, str):
        if value.strip():
            return _well_formed(value, name, source)
        return "", [Finding("D105", "error", source, f'"{name}" is empty', "remove the row, or fill it in")]
    if structured and isinstance(value, dict | list):
        try:
            text, findings = _well_formed(canonical(value), name, source)
        except (ValueError, RecursionError):  # a number beyond a double, or nested too deeply to write
            message = f'"{name}" is {_kind(value)} that JSON cannot hold: a number in it is out of range'
            return "", [Finding("D104", "error", source, message, "write the number, or the whole, as a string")]
        message = f'"{name}" is {_kind(value)}; it is trained as canonical JSON text'
        hint = "nothing to do; write it as a string to choose the exact text yourself"
        return text, findings or [Finding("D104", "warning", source, message, hint)]
    message = f'"{name}" must be a string, not {_kind(value)}'
    return "", [Finding("D104", "error", source, message, "put it between double quotes")]


def _well_formed(text: str, name: str, source: Source) -> tuple[str, list[Finding]]:
    if text.isascii():
        return text, []
    found = _NO_CHARACTER.search(text)
    if found is None:
        return text, []
    if "\ud800" <= found.group() <= "\udfff":
        message = f'"{name}" holds half of a surrogate pair, which is not a character'
        return "", [Finding("D107", "error", source, message, "write the whole pair, or the character itself")]
    message = f'"{name}" holds a code point that Unicode keeps for internal use (U+FDD0 to U+FDEF)'
    return "", [Finding("D107", "error", source, message, "remove it: it is no character of any script")]


def _missing(name: str, row: dict[str, Any], form: Form, source: Source, prefix: str = "") -> Finding:
    columns = form.columns
    near = _near(name, tuple(key for key in row if key not in columns))
    if near:
        hint = f'did you mean "{name}" where the row has "{near}"?'
    elif form in (PAIR, MESSAGES):
        hint = f"write {SHAPE}, or name the columns: --prompt-column, --completion-column"
    else:
        hint = f"the other rows have {form}; fill it in, or drop the row"
    return Finding("D103", "error", source, f'{prefix}the field "{name}" is missing', hint)


@functools.lru_cache(maxsize=16)  # what one row lacks, the next rows lack too
def _near(name: str, keys: tuple[str, ...]) -> str | None:
    folded = {key.casefold(): key for key in keys}
    found = difflib.get_close_matches(name.casefold(), folded, 1)
    return folded[found[0]] if found else None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
