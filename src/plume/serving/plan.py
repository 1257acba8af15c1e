"""From what is asked to what the engine is given: the prompt's ids, the shape of the answer, the room for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plume.errors import ContextExceeded, UserError
from plume.memory.recall.fulltext import best_of
from plume.models.bundle import Bundle
from plume.serving import formats
from plume.serving.errors import ApiError, from_plume, invalid, unsupported
from plume.serving.formats import Tool, ToolChoice
from plume.serving.said import Calling
from plume.serving.sampling import room_for
from plume.text.window import fit_window
from plume.types import Grammar, Message

_RECALLED = 4  # messages that may be taken up again, as in plume chat
_BARE = "arguments"  # the key of a call's arguments where the template knows no calls


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request wants of a reply; `shape` makes the grammar of its text, None for any text. `messages_param`,
    `limit_param` and `shape_param` are what the request calls these, `tool_param` the parameters of tool number {}.
    With `cut` the oldest turns are left out where not all fit, and with `recall` those of them stay that the newest
    message shares words with."""

    messages: Sequence[Message]
    tools: Sequence[Tool]
    tool_choice: ToolChoice | None
    shape: Callable[[], Grammar | None] | None
    most: int | None
    messages_param: str
    limit_param: str
    shape_param: str
    tool_param: str
    cut: bool = False
    recall: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """The ids to read, what holds the answer to its shape, how its calls are read, and the most tokens of it."""

    ids: tuple[int, ...]
    grammar: Grammar | None
    calling: Calling | None
    most: int


def plan_reply(asked: Asked, bundle: Bundle) -> Planned:
    """Raises ApiError for what this model cannot be asked."""
    ids, calling = prompt_of(asked, bundle)
    room = room_for(len(ids), bundle, asked.messages_param)
    grammar = calling.grammar if calling and calling.must else asked.shape() if asked.shape else None
    # Answers of a shape that was not trained are longer than those the model was made for.
    most = min(room, asked.most or (room if grammar or calling else bundle.max_new_tokens))
    if grammar is not None and grammar.shortest > most:
        message = f"the shortest answer of that shape has {grammar.shortest} tokens; at most {most} are allowed"
        raise invalid(asked.limit_param, message)
    return Planned(ids, grammar, calling, most)


def prompt_of(asked: Asked, bundle: Bundle) -> tuple[tuple[int, ...], Calling | None]:
    """The ids to read, up to where the answer begins, and how its calls are read. Raises ApiError."""
    tools, mode = formats.chosen(asked.tools, asked.tool_choice)
    syntax = bundle.template.call_syntax
    if mode == "auto" and syntax is None:
        raise unsupported("tools", "this model's chat template cannot write calls: set tool_choice to required or none")
    if mode != "none" and asked.shape is not None:
        name = asked.shape_param
        raise unsupported(name, f"{name} and tools at once are not supported by this server")
    shown = [tool.model_dump(exclude_none=True) for tool in asked.tools] if syntax else []
    ids = _read(asked, bundle, shown)
    calling = None
    if mode != "none":
        key = syntax.arguments if syntax else _BARE
        places = {tool.function.name: asked.tool_param.format(number) for number, tool in enumerate(asked.tools)}
        shape = formats.call_grammar(tools, key, bundle, places)
        named = isinstance(asked.tool_choice, formats.NamedTool)
        begin = syntax.begin if syntax else ""
        calling = Calling(shape, begin, key, mode == "required", "stop" if named else "tool_calls")
        if calling.must:
            ids = (*ids, *bundle.tokenizer.encode(begin))
    return ids, calling


def _read(asked: Asked, bundle: Bundle, tools: Sequence[dict[str, object]]) -> tuple[int, ...]:
    try:
        if asked.cut:
            context = bundle.model.context_length
            answer = min(asked.most or bundle.max_new_tokens, context // 2)
            recalled = _older(asked.messages) if asked.recall else ()
            return fit_window(
                asked.messages, bundle.template, bundle.tokenizer, context - answer, tools=tools, recalled=recalled
            ).ids
        return bundle.template.encode(asked.messages, bundle.tokenizer, tools, reply=True).ids
    except ContextExceeded as error:
        param = asked.messages_param
        raise ApiError(400, error.message, param=param, code="context_length_exceeded") from None
    except UserError as error:
        failed: ApiError = from_plume(error, asked.messages_param)
        raise failed from None


def _older(messages: Sequence[Message]) -> Sequence[int]:
    """Where messages stand that the newest question is about, the best first."""
    newest = max((place for place, one in enumerate(messages) if one.role == "user"), default=0)
    spoken = ["" if one.role == "system" else one.content for one in messages[:newest]]
    return best_of(spoken, messages[newest].content, _RECALLED)
