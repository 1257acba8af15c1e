"""What shape an answer is to have: JSON, JSON of a schema, or a call of a tool."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from plume.errors import UserError
from plume.generation import constrain
from plume.models.bundle import Bundle
from plume.serving.errors import ApiError, invalid
from plume.serving.sampling import Body
from plume.types import Grammar

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
_NAMED = ("properties", "patternProperties", "$defs", "definitions")  # whose keys are names
_LITERAL = ("const", "enum", "default", "examples")  # what stands there is no schema


class TextFormat(Body):
    type: Literal["text"]


class JsonObjectFormat(Body):
    type: Literal["json_object"]


class NamedSchema(Body):
    """The answer satisfies the schema whether or not it is `strict`."""

    name: Name
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class Function(Body):
    """Arguments satisfy the schema whether or not it is `strict`."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class FunctionName(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1)]


class AllowedToolsChoice(Body):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


Mode = Literal["none", "auto", "required"]
ToolChoice = Mode | Annotated[NamedTool | AllowedToolsChoice, Field(discriminator="type")]


def format_grammar(given: ResponseFormat | None, bundle: Bundle) -> Grammar | None:
    """Raises ApiError for a schema that cannot be enforced, naming what in it."""
    if isinstance(given, JsonSchemaFormat):
        return schema_grammar(given.json_schema.schema_, bundle, "response_format.json_schema.schema")
    if isinstance(given, JsonObjectFormat):
        return schema_grammar({"type": "object"}, bundle, "response_format")
    return None


def schema_grammar(schema: Mapping[str, Any], bundle: Bundle, param: str) -> Grammar:
    try:
        return constrain.json_schema(schema, bundle)
    except UserError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise ApiError(400, f"{error.message}{hint}", param=param, code="unsupported_schema") from None


def chosen(tools: Sequence[Tool], choice: ToolChoice | None) -> tuple[Sequence[Tool], Mode]:
    """The tools that may be called and whether one must be. Raises ApiError for a choice of what is not there."""
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise invalid("tools", "two tools have the same name")
    if isinstance(choice, NamedTool | AllowedToolsChoice):
        named = [choice] if isinstance(choice, NamedTool) else choice.allowed_tools.tools
        wanted = [one.function.name for one in named]
        for name in wanted:
            if name not in names:
                raise invalid("tool_choice", f"tool_choice: there is no tool {name!r}")
        mode: Mode = "required" if isinstance(choice, NamedTool) else choice.allowed_tools.mode
        return [tool for tool in tools if tool.function.name in wanted], mode
    if not tools:
        if choice in ("auto", "required"):
            raise invalid("tool_choice", "tool_choice needs tools")
        return (), "none"
    return tools, choice or "auto"


def call_grammar(tools: Sequence[Tool], key: str, bundle: Bundle, places: Mapping[str, str]) -> Grammar:
    """An object with a tool's name and, under `key`, arguments that its schema allows. `places` says where the request
    has the parameters of each. Raises ApiError."""
    several = len(tools) > 1
    alone = {tool.function.name: _parameters(tool, places[tool.function.name]) for tool in tools}
    calls = []
    for number, (name, parameters) in enumerate(alone.items()):
        place = (f"/anyOf/{number}" if several else "") + f"/properties/{key}"
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, key: moved(parameters, place)},
                "required": ["name", key],
                "additionalProperties": False,
            }
        )
    try:
        return schema_grammar({"anyOf": calls} if several else calls[0], bundle, "tools")
    except ApiError:
        for name, parameters in alone.items():  # each by itself, so that the one at fault is named
            schema_grammar(parameters, bundle, places[name])
        raise


def _parameters(tool: Tool, where: str) -> dict[str, Any]:
    given = tool.function.parameters
    if not given:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if given.get("type", "object") != "object":
        raise invalid(where, f"{where}: the arguments of a function are an object")
    return {**given, "type": "object"}


def moved(schema: Any, place: str) -> Any:
    """A schema that now stands at another place of a larger one: references to parts of itself follow it."""
    if isinstance(schema, list):
        return [moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            found[key] = {name: moved(part, place) for name, part in value.items()}
        elif key == "$ref" and isinstance(value, str) and re.match(r"#(/|$)", value):
            found[key] = f"#{place}{value[1:]}"
        else:
            found[key] = value if key in _LITERAL else moved(value, place)
    return found
