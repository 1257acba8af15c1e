"""Messages as they stand in a request, and as the template takes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plume.serving.errors import invalid
from plume.serving.sampling import Body
from plume.types import Message, ToolCall


class TextPart(Body):
    type: Literal["text"]
    text: str


Content = str | list[TextPart]


class CalledFunction(Body):
    name: str
    arguments: str


class CalledTool(Body):
    id: str
    type: Literal["function"]
    function: CalledFunction


class SystemMessage(Body):
    role: Literal["system", "developer"]
    content: Content


class UserMessage(Body):
    role: Literal["user"]
    content: Content


class AssistantMessage(Body):
    """What the model said earlier; fields that clients send back empty may be there, empty."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[CalledTool] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[None], Field(max_length=0)] | None = None


class ToolMessage(Body):
    role: Literal["tool"]
    content: Content
    tool_call_id: str


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage,
    Field(discriminator="role"),
]


def messages_of(given: list[ChatMessage]) -> tuple[Message, ...]:
    """Raises ApiError for a reply that says nothing."""
    return tuple(_message(message, f"messages[{number}]") for number, message in enumerate(given))


def _message(message: ChatMessage, where: str) -> Message:
    if isinstance(message, AssistantMessage):
        calls = tuple(
            ToolCall(call.function.name, call.function.arguments, call.id) for call in message.tool_calls or ()
        )
        if message.content is None and not calls:
            raise invalid(f"{where}.content", f"{where} has neither content nor tool_calls")
        return Message("assistant", _text(message.content), calls)
    if isinstance(message, ToolMessage):
        return Message("tool", _text(message.content), tool_call_id=message.tool_call_id)
    return Message("system" if isinstance(message, SystemMessage) else "user", _text(message.content))


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)
