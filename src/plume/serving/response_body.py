"""The body of POST /v1/responses: what is honoured, and what the engine is asked for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from openai.types.responses import Response
from pydantic import Field

from plume.generation.reply import Request as EngineRequest
from plume.models.bundle import Bundle
from plume.serving import formats
from plume.serving.errors import invalid, unsupported
from plume.serving.formats import AllowedTools, AllowedToolsChoice, Function, FunctionName, Mode, NamedSchema, NamedTool
from plume.serving.items import InputItem, Named, as_turns
from plume.serving.metadata import Metadata
from plume.serving.plan import Asked, Planned, plan_reply, prompt_of
from plume.serving.sampling import Body, SamplingBody, sampling_of, scope_of
from plume.types import Grammar, Message, Sampling

_LOGPROBS: Literal["message.output_text.logprobs"] = "message.output_text.logprobs"


class SchemaFormat(NamedSchema):
    type: Literal["json_schema"]


TextShape = Annotated[formats.TextFormat | formats.JsonObjectFormat | SchemaFormat, Field(discriminator="type")]


class TextBody(Body):
    format: TextShape | None = None
    verbosity: Literal["medium"] | None = None


class FunctionTool(Body):
    """Arguments satisfy the schema whether or not it is `strict`."""

    type: Literal["function"]
    name: formats.Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolName(FunctionName):
    type: Literal["function"]


class AllowedNames(Body):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolName], Field(min_length=1)]


class ReasoningBody(Body):
    """Models here say what they say without thinking first."""

    effort: Literal["none"] | None = None
    summary: None = None


class ConversationId(Body):
    id: str


class InputBody(Body):
    """What a response is made from, and how many tokens of input it has."""

    model: str
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationId | None = None
    text: TextBody | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Mode | Annotated[ToolName | AllowedNames, Field(discriminator="type")] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningBody | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @property
    def conversation_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, ConversationId) else self.conversation


class ResponseBody(InputBody, SamplingBody):
    """The parameters that are honoured. Those with one value may be given, with that value. `stop`, `seed`, `top_k`
    and the penalties are not OpenAI's here; they mean what they do for chat completions."""

    store: bool | None = None
    metadata: Metadata | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    background: Literal[False] | None = None
    n: None = None  # there is one response

    @property
    def about(self) -> str | None:
        """The person whom it is about."""
        return self.safety_identifier or self.user or None

    @property
    def logprobs(self) -> bool:
        return _LOGPROBS in (self.include or ())


def check_past(body: InputBody) -> None:
    """Raises ApiError where two parameters say what came before."""
    if body.conversation is not None and body.previous_response_id is not None:
        message = "previous_response_id and conversation both say what came before: give one of them"
        raise invalid("previous_response_id", message)


def check(body: ResponseBody) -> None:
    """Raises ApiError for parameters that do not go together."""
    check_past(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs", f"top_logprobs needs include: [{_LOGPROBS!r}]")
    if body.stream_options is not None and body.stream_options.include_usage is not None:
        raise unsupported("stream_options.include_usage", "the last event of a response has its usage anyway")


def plan(
    body: ResponseBody, before: Sequence[Message], given: Sequence[Named], bundle: Bundle, tenant: str, *, recall: bool
) -> tuple[Planned, EngineRequest]:
    """Everything that is decided before a token is chosen. Raises ApiError."""
    found = plan_reply(_asked(body, before, given, bundle, body.max_output_tokens, recall=recall), bundle)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    sampling = sampling_of(body, bundle, max_new_tokens=found.most, logprobs=logprobs)
    return found, EngineRequest(found.ids, sampling, found.grammar, scope=scope_of(body, tenant))


def input_tokens(
    body: InputBody, before: Sequence[Message], given: Sequence[Named], bundle: Bundle, *, recall: bool
) -> int:
    """How many tokens the model would read. Raises ApiError."""
    ids, _ = prompt_of(_asked(body, before, given, bundle, None, recall=recall), bundle)
    return len(ids)


def _asked(
    body: InputBody,
    before: Sequence[Message],
    given: Sequence[Named],
    bundle: Bundle,
    most: int | None,
    *,
    recall: bool,
) -> Asked:
    system = [Message("system", body.instructions)] if body.instructions else []
    form = body.text.format if body.text else None
    return Asked(
        as_turns([*system, *before, *(one.message for one in given)]),
        [_tool(tool) for tool in body.tools or ()],
        _choice(body),
        None if form is None or form.type == "text" else partial(_grammar, form, bundle),
        most,
        messages_param="input",
        limit_param="max_output_tokens",
        shape_param="text.format",
        tool_param="tools[{}].parameters",
        cut=body.truncation == "auto",
        recall=recall,
    )


def begun(body: ResponseBody, sampling: Sampling, id: str) -> Response:
    """The response before anything is said."""
    conversation = body.conversation_id
    text: dict[str, Any] = {"format": {"type": "text"}}
    if body.text:
        text |= body.text.model_dump(by_alias=True, exclude_none=True)
    fields: dict[str, Any] = {
        "id": id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "temperature": sampling.temperature,
        "text": text,
        "tool_choice": "auto" if body.tool_choice is None else body.model_dump()["tool_choice"],
        "tools": [_shown(tool) for tool in body.tools or ()],
        "top_p": sampling.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
    }
    if conversation is not None:
        fields["conversation"] = {"id": conversation}
    for name in ("top_logprobs", "user", "safety_identifier", "prompt_cache_key", "service_tier"):
        if getattr(body, name) is not None:
            fields[name] = getattr(body, name)
    return Response.model_validate(fields)


def _shown(tool: FunctionTool) -> dict[str, Any]:
    shown = {"type": "function", "name": tool.name, "parameters": tool.parameters, "strict": tool.strict}
    return shown if tool.description is None else {**shown, "description": tool.description}


def _tool(tool: FunctionTool) -> formats.Tool:
    function = {name: value for name, value in tool.model_dump(exclude_unset=True).items() if name != "type"}
    return formats.Tool(type="function", function=Function(**function))


def _choice(body: InputBody) -> formats.ToolChoice | None:
    choice = body.tool_choice
    if isinstance(choice, ToolName):
        return _named(choice)
    if isinstance(choice, AllowedNames):
        allowed = AllowedTools(mode=choice.mode, tools=[_named(tool) for tool in choice.tools])
        return AllowedToolsChoice(type="allowed_tools", allowed_tools=allowed)
    return choice


def _named(tool: ToolName) -> NamedTool:
    return NamedTool(type="function", function=FunctionName(name=tool.name))


def _grammar(form: formats.JsonObjectFormat | SchemaFormat, bundle: Bundle) -> Grammar:
    if isinstance(form, SchemaFormat):
        return formats.schema_grammar(form.schema_, bundle, "text.format.schema")
    return formats.schema_grammar({"type": "object"}, bundle, "text.format")
