"""The window: what of a history is said to the model never exceeds its context, and loses nothing that would fit."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plume.errors import ContextExceeded
from plume.text.template import TEMPLATES, ChatTemplate, with_persona
from plume.text.tokenizer import TextTokenizer, train_tokenizer
from plume.text.window import Window, count_tokens, fit_window
from plume.types import Encoded, Message, ToolCall
from test_text import CARELESS, CHATML, KINDS, QWEN_CALLS, TOOLS, chatml, contents, trained

FOREIGN = {"chatml": CHATML, "careless": CARELESS, "calls": QWEN_CALLS}
WITH_CALLS = ("chat", "calls")
EVERY = [(name, kind) for name in TEMPLATES for kind in KINDS] + [(name, "bpe") for name in FOREIGN]


@functools.cache
def bound(name: str, kind: Any = "bpe") -> tuple[ChatTemplate, TextTokenizer]:
    """A template with its tokenizer, by name."""
    if name in FOREIGN:
        return chatml(FOREIGN[name])
    return ChatTemplate(TEMPLATES[name], trained(kind)), trained(kind)


@dataclass
class Counting:
    """A template that counts how often it is asked, and for how many messages."""

    template: ChatTemplate
    asked: list[int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.template, name)

    def encode(self, messages: Sequence[Message], *rest: Any, **options: Any) -> Encoded:
        self.asked.append(len(messages))
        return self.template.encode(messages, *rest, **options)


@st.composite
def histories(draw: st.DrawFn, *, calls: bool) -> tuple[Message, ...]:
    """A persona perhaps, turns with calls and results, and a question at the end."""
    said = [Message("system", draw(contents))] if draw(st.booleans()) else []
    for number in range(draw(st.integers(0, 5))):
        said.append(Message("user", draw(contents)))
        for round in range(draw(st.integers(0, 2)) if calls else 0):
            ids = [f"{number}.{round}.{n}" for n in range(draw(st.integers(1, 2)))]
            asked = tuple(ToolCall("find", json.dumps({"what": draw(contents)}), id) for id in ids)
            said.append(Message("assistant", "", asked))
            said += [Message("tool", draw(contents), tool_call_id=id) for id in ids]
        said.append(Message("assistant", draw(contents)))
    return (*said, Message("user", draw(contents)))


def turns_of(messages: Sequence[Message]) -> list[list[int]]:
    """Positions by turn; the persona apart, as the first."""
    turns: list[list[int]] = [[]]
    for place, message in enumerate(messages):
        if message.role == "user":
            turns.append([])
        turns[-1].append(place)
    return turns


@pytest.mark.parametrize(("name", "kind"), EVERY)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), budget=st.integers(1, 200))
def test_the_context_is_never_exceeded_and_no_turn_is_cut(
    name: str, kind: Any, data: st.DataObject, budget: int
) -> None:
    template, tokenizer = bound(name, kind)
    messages = data.draw(histories(calls=name in WITH_CALLS))
    tools = TOOLS if name in WITH_CALLS and data.draw(st.booleans()) else ()
    recalled = data.draw(st.lists(st.integers(-1, len(messages)), max_size=4))
    summary = data.draw(st.none() | contents)
    persona, *turns = turns_of(messages)

    def length(*kept: Sequence[int]) -> int:
        said = [messages[place] for turn in kept for place in turn]
        return len(template.encode(said, tokenizer, tools, reply=True).ids)

    fitted = functools.partial(fit_window, messages, template, tokenizer, budget, tools=tools)
    least = length(persona, turns[-1])
    if least > budget:
        with pytest.raises(ContextExceeded) as caught:
            fitted(recalled=recalled, summary=summary)
        assert (caught.value.tokens, caught.value.budget) == (least, budget)
        return
    window = fitted(recalled=recalled, summary=summary)
    assert len(window.ids) <= budget
    assert window.ids == template.encode(window.messages, tokenizer, tools, reply=True).ids
    assert sorted((*window.kept, *window.left_out)) == list(range(len(messages)))
    assert list(window.kept) == [place for turn in (persona, *turns) if set(turn) & set(window.kept) for place in turn]
    assert {*persona, *turns[-1]} <= set(window.kept)
    assert set(window.recalled) <= {place for turn in turns if set(turn) & set(recalled) for place in turn}
    assert [messages[place] for place in window.kept[len(persona) :]] == list(
        window.messages[-len(window.kept) + len(persona) :]
    )
    assert not window.summarised or (
        summary is not None and window.left_out and summary.strip() in window.messages[0].content
    )
    if not window.summarised:
        assert window.messages == tuple(messages[place] for place in window.kept)
    newest = [turn for turn in turns if set(turn) <= set(window.kept) - set(window.recalled)]
    if window.left_out and not window.summarised and not window.recalled:
        assert length(persona, *turns[-len(newest) - 1 :]) > budget


# --- examples: every word and mark of the chat template is one token ---

PERSONA = Message("system", "sois bref")


def talk(turns: int) -> list[Message]:
    """Turns of five tokens each: two marks, two words and the end token."""
    asked = [(Message("user", f"mot{turn}"), Message("assistant", f"mot{turn}")) for turn in range(turns)]
    return [message for turn in asked for message in turn]


@functools.cache
def words() -> tuple[ChatTemplate, TextTokenizer]:
    texts = ["sois bref résumé", *(f"mot{turn}" for turn in range(2000)), "court " * 9]
    tokenizer = train_tokenizer("word", texts, 4000)
    return ChatTemplate(TEMPLATES["chat"], tokenizer), tokenizer


def fitted(messages: Sequence[Message], budget: int, **options: Any) -> Window:
    return fit_window(messages, *words(), budget, **options)


def test_what_fits_is_told_whole() -> None:
    messages = [PERSONA, *talk(3), Message("user", "mot3")]
    window = fitted(messages, 64, recalled=[1], summary="résumé")
    assert window.messages == tuple(messages)
    assert (window.left_out, window.recalled, window.summarised) == ((), (), False)


def test_the_oldest_turns_are_left_out_and_reported() -> None:
    messages = [PERSONA, *talk(9), Message("user", "mot9")]
    window = fitted(messages, 20)
    assert window.messages == (PERSONA, *messages[-5:])
    assert window.left_out == tuple(range(1, 15))
    assert count_tokens([messages[place] for place in window.left_out], words()[1]) == 14
    assert len(window.ids) == 16


def test_a_recalled_turn_stands_in_its_old_place_before_the_newest() -> None:
    messages = [PERSONA, *talk(20), Message("user", "mot20")]
    window = fitted(messages, 40, recalled=[6, 4, 1])
    assert window.recalled == (5, 6)
    assert window.messages == (PERSONA, *messages[5:7], *messages[-len(window.messages) + 3 :])
    assert 40 - 5 < len(window.ids) <= 40


def test_a_recalled_turn_that_is_too_long_makes_room_for_the_next() -> None:
    long = [Message("user", "court " * 9), Message("assistant", "court")]
    messages = [*long, *talk(20), Message("user", "mot20")]
    assert fitted(messages, 40, recalled=[0, 4]).recalled == (4, 5)


def test_a_summary_is_told_with_the_persona_once_something_is_left_out() -> None:
    messages = [*talk(9), Message("user", "mot9")]
    window = fitted(messages, 20, summary="résumé")
    assert window.summarised
    assert window.messages[0] == Message("system", "résumé")
    persona = fitted([PERSONA, *messages], 20, summary="résumé")
    assert persona.messages[0] == Message("system", "sois bref\n\nrésumé")
    assert not fitted([PERSONA, *messages], 7, summary="court " * 9).summarised


def test_a_summary_is_told_after_the_persona_of_the_model() -> None:
    template, tokenizer = words()
    messages = [*talk(9), Message("user", "mot9")]
    told = fit_window(messages, with_persona(template, tokenizer, "sois bref"), tokenizer, 20, summary="résumé")
    assert told.messages[0] == Message("system", "sois bref\n\nrésumé")


def test_the_persona_of_the_model_is_counted() -> None:
    template, tokenizer = words()
    with pytest.raises(ContextExceeded, match="with the persona before it has 6 tokens"):
        fit_window([Message("user", "mot9")], with_persona(template, tokenizer, "sois bref"), tokenizer, 5)


def test_results_stay_with_their_calls_even_when_somebody_speaks_between_them() -> None:
    call = Message("assistant", "", (ToolCall("find", "{}", "1"),))
    result = Message("tool", "mot2", tool_call_id="1")
    turn = [Message("user", "mot1"), call, Message("user", "mot3"), result, Message("assistant", "mot4")]
    messages = [*talk(3), *turn, Message("user", "mot5")]
    needed = len(fitted([*turn, messages[-1]], 200).ids)
    assert fitted(messages, needed).messages == (*turn, messages[-1])
    assert fitted(messages, needed - 1).messages == (messages[-1],)


def test_a_call_id_used_twice_belongs_to_the_latest_call() -> None:
    called = [
        Message("user", "mot1"),
        Message("assistant", "", (ToolCall("find", "{}", "1"),)),
        Message("tool", "mot2", tool_call_id="1"),
    ]
    window = fitted([*called, Message("assistant", "mot3"), *called], len(fitted(called, 200).ids))
    assert window.kept == (4, 5, 6)


def test_an_instruction_in_the_middle_goes_with_the_question_after_it() -> None:
    messages = [*talk(3), Message("system", "sois bref"), Message("user", "mot9")]
    assert fitted(messages, 6).messages == tuple(messages[-2:])


def test_an_instruction_after_the_question_does_not_part_it_from_the_answer() -> None:
    messages = [*talk(3), Message("user", "mot9"), Message("system", "sois bref")]
    assert fitted(messages, 6).messages == tuple(messages[-2:])


def test_what_cannot_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(ContextExceeded, match="the newest turn with the persona before it has 6 tokens") as caught:
        fitted([PERSONA, *talk(4), Message("user", "mot4")], 5)
    assert "room for 5" in caught.value.message
    with pytest.raises(ContextExceeded, match="room for 0"):
        fitted([Message("user", "mot4")], -3)


@pytest.mark.parametrize("content", ["", "mot7", "court " * 9])
def test_a_long_history_is_rendered_a_few_times_and_never_whole(content: str) -> None:
    template = Counting(words()[0], [])
    history = [Message("user", content), Message("assistant", content)] * 50_000
    window = fit_window([PERSONA, *history, Message("user", "mot1")], template, words()[1], 1000)
    assert 990 < len(window.ids) <= 1000
    assert len(template.asked) <= 8
    assert max(template.asked) <= 2 * 1000 + 2
