"""Items of responses and conversations: as they stand in a request, as they are shown, and the messages they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from openai.types.responses import (
    ResponseFunctionToolCallItem,
    ResponseFunctionToolCallOutputItem,
    ResponseInputMessageItem,
    ResponseInputText,
    ResponseOutputMessage,
    ResponseOutputText,
)
from pydantic import BaseModel, Discriminator, Field, Tag, TypeAdapter

from plume.memory.store import new_id
from plume.serving.pages import Page
from plume.serving.sampling import Body
from plume.types import Message, ToolCall

Status = Literal["in_progress", "completed", "incomplete"]
Shown = (
    ResponseInputMessageItem | ResponseOutputMessage | ResponseFunctionToolCallItem | ResponseFunctionToolCallOutputItem
)


class DescribedItem(BaseModel):
    """An item as the OpenAPI document has it: with all the kinds that OpenAI knows, it would take seconds to make."""

    id: str
    type: Literal["message", "function_call", "function_call_output"]
    status: Status


ITEM: dict[int | str, dict[str, Any]] = {200: {"model": DescribedItem}}
LISTED: dict[int | str, dict[str, Any]] = {200: {"model": Page[DescribedItem]}}


class TextOfItem(Body):
    """Text said to the model or by it; how likely it was then changes nothing now."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Annotated[list[None], Field(max_length=0)] | None = None
    logprobs: list[dict[str, Any]] | None = None


class MessageItem(Body):
    """`id` and `status` are those of an item that is sent back; they are given anew."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[TextOfItem]
    id: str | None = None
    status: Status | None = None
    phase: None = None


class CallItem(Body):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None


class CallOutputItem(Body):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[TextOfItem]
    id: str | None = None
    status: Status | None = None


def _kind(value: Any) -> str:
    given = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "message" if given is None else str(given)


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")],
    Discriminator(_kind),
]
_ITEMS: TypeAdapter[list[MessageItem | CallItem | CallOutputItem]] = TypeAdapter(list[InputItem])


class Named(NamedTuple):
    """A message with the id that it is kept under."""

    id: str
    message: Message


def named(given: str | Iterable[MessageItem | CallItem | CallOutputItem]) -> list[Named]:
    """What a request says, under new ids: one that is known already would be taken for the item of that id."""
    if isinstance(given, str):
        return [Named(new_id("msg"), Message("user", given))]
    return [Named(new_id(_PREFIXES[_kind(item)]), _message(item)) for item in given]


_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def named_of(shown: Sequence[Any]) -> list[Named]:
    """Items as they were shown, as JSON, under the ids they bear."""
    items = _ITEMS.validate_python(shown)
    return [Named(item.id or "", _message(item)) for item in items]


def show(one: Named) -> list[Shown]:
    """A message as items: one, unless it says something and calls tools, or calls several."""
    id, message = one
    if message.role == "tool":
        call_id = message.tool_call_id
        return [
            ResponseFunctionToolCallOutputItem(
                id=id, type="function_call_output", call_id=call_id, output=message.content, status="completed"
            )
        ]
    if message.role != "assistant":
        content = [ResponseInputText(type="input_text", text=message.content)]
        return [
            ResponseInputMessageItem(id=id, type="message", role=message.role, status="completed", content=content)  # type: ignore[arg-type]
        ]
    shown: list[Shown] = []
    if message.content or not message.tool_calls:
        shown.append(output_message(id, message.content, "completed"))
    for call in message.tool_calls:
        own = id if not shown else f"{id}_{len(shown)}"
        shown.append(function_call(own, call, "completed"))
    return shown


def output_message(id: str, text: str, status: Status) -> ResponseOutputMessage:
    content = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id=id, type="message", role="assistant", status=status, content=[content])


def function_call(id: str, call: ToolCall, status: Status) -> ResponseFunctionToolCallItem:
    return ResponseFunctionToolCallItem(
        id=id, type="function_call", call_id=call.id, name=call.name, arguments=call.arguments, status=status
    )


def as_turns(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Messages as a template takes them: calls belong to what was said just before them."""
    turns: list[Message] = []
    for message in messages:
        if message.tool_calls and turns and turns[-1].role == "assistant":
            before = turns[-1]
            calls = before.tool_calls + message.tool_calls
            turns[-1] = Message("assistant", before.content + message.content, calls)
        else:
            turns.append(message)
    return tuple(turns)


def _message(item: MessageItem | CallItem | CallOutputItem) -> Message:
    if isinstance(item, CallItem):
        return Message("assistant", "", (ToolCall(item.name, item.arguments, item.call_id),))
    if isinstance(item, CallOutputItem):
        return Message("tool", _text(item.output), tool_call_id=item.call_id)
    return Message("system" if item.role == "developer" else item.role, _text(item.content))


def _text(content: str | list[TextOfItem]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
