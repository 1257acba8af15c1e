"""Redaction of conversations: one mark for one value, in text and in JSON, over messages and after a break."""

import json
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plume.errors import UserError
from plume.redact import Redaction, Redactor, listed, recognise, redaction, restored
from plume.types import Message, ToolCall
from test_redact import PIECES

NAMES = listed(["Jean-Pierre", "Hélène de Kersauson", "Émilie", "Rose", "O’Brien"])
ALL = Redaction(names=NAMES)


def test_one_mark_for_one_value_however_it_is_written() -> None:
    redactor = Redactor(ALL)
    assert redactor.text("a.b@phare.fr, c@phare.fr, A.B@PHARE.FR") == "[EMAIL], [EMAIL_2], [EMAIL]"
    assert redactor.text("06 12 34 56 78 ou 06.12.34.56.78 ; c@phare.fr") == "[TEL] ou [TEL] ; [EMAIL_2]"
    assert redactor.text("né le 12 mars 1984, depuis 51.15.20.33") == "né le [NAISSANCE], depuis [IP]"


def test_marks_go_on_in_a_resumed_conversation() -> None:
    first = Redactor(ALL)
    first.text("a@phare.fr, JEAN-PIERRE")
    resumed = Redactor(ALL, json.loads(json.dumps(first.values)))
    assert resumed.text("b@phare.fr, a@phare.fr, Jean‑Pierre et Rose") == "[EMAIL_2], [EMAIL], [NOM] et [NOM_2]"


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("« Émilie »", "« [NOM] »"),
        ("«\u00a0Émilie\u00a0» et EMILIE", "«\u00a0[NOM]\u00a0» et [NOM]"),
        ("d’Émilie, d'Émilie, qu’Émilie", "d’[NOM], d'[NOM], qu’[NOM]"),
        ("HÉLÈNE DE KERSAUSON, Helene\u00a0de Kersauson", "[NOM], [NOM]"),
        ("O'Brien et O’Brien's", "[NOM] et [NOM]'s"),
        ("Jean-Pierre, jean-pierre, Jean-Pierre-Marie", "[NOM], [NOM], Jean-Pierre-Marie"),
        ("la rose de Rose", "la rose de [NOM]"),
    ],
)
def test_names_in_every_dress(text: str, marked: str) -> None:
    assert Redactor(ALL).text(text) == marked
    assert Redactor(ALL).text(unicodedata.normalize("NFD", text)) == unicodedata.normalize("NFD", marked)


def test_a_mark_that_somebody_wrote_is_not_given_to_a_value() -> None:
    redactor = Redactor(ALL)
    marked = redactor.text("[EMAIL] puis a@phare.fr, [EMAIL_999999999], b@phare.fr")
    assert marked == "[EMAIL] puis [EMAIL_2], [EMAIL_999999999], [EMAIL_3]"
    assert restored(marked, redactor.values) == "[EMAIL] puis a@phare.fr, [EMAIL_999999999], b@phare.fr"


def test_json_stays_json_with_the_same_keys_and_form() -> None:
    text = (
        r'{ "à": "\nmarie@phare.fr \u00c9milie \ud83d\ude00", "carte": 4111111111111111,'
        r' "date_de_naissance": "1990-10-21", "n": 1.50e2, "v": [true, null] }'
    )
    marked = Redactor(ALL).text(text)
    assert marked == (
        r'{ "à": "\n[EMAIL] [NOM] \ud83d\ude00", "carte": "[CARTE]",'
        r' "date_de_naissance": "[NAISSANCE]", "n": 1.50e2, "v": [true, null] }'
    )
    json.loads(marked)


def test_arguments_of_calls_are_redacted_and_names_of_tools_are_not() -> None:
    call = ToolCall("rose", '{"to":"marie@phare.fr","body":"Bonjour \\"Rose\\""}', "call_1")
    redactor = Redactor(ALL)
    marked = redactor.message(Message("assistant", "J’écris à Rose.", (call,)))
    assert marked.content == "J’écris à [NOM]."
    assert marked.tool_calls == (ToolCall("rose", '{"to":"[EMAIL]","body":"Bonjour \\"[NOM]\\""}', "call_1"),)
    result = redactor.message(Message("tool", '["marie@phare.fr"]', tool_call_id="call_1"))
    assert (result.content, result.tool_call_id) == ('["[EMAIL]"]', "call_1")
    assert restored(marked.tool_calls[0].arguments, redactor.values) == call.arguments


def test_a_restored_value_does_not_break_json() -> None:
    redactor = Redactor(ALL)
    text = json.dumps({"a": "password: x\\k9!fr22b"})
    marked = redactor.text(text)
    assert "k9!fr22b" not in marked
    assert json.loads(restored(marked, redactor.values)) == json.loads(text)


def test_only_the_kinds_asked_for() -> None:
    text = "a@phare.fr, 06 12 34 56 78, sk-aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0"
    assert Redactor(redaction(["phone", "secret"])).text(text) == "a@phare.fr, [TEL], [SECRET]"
    assert Redactor(redaction(["all"])).text(text) == "[EMAIL], [TEL], [SECRET]"
    with pytest.raises(UserError, match="no kind 'mail'"):
        redaction(["mail"])
    with pytest.raises(UserError, match="no list"):
        redaction(["name"])


WRITTEN = st.lists(
    st.one_of(PIECES, st.sampled_from(["Rose ", "[EMAIL]", "né le 1/1/1990", "\\", '"'])), max_size=8
).map("".join)


@settings(max_examples=200, deadline=None)
@given(WRITTEN)
def test_nothing_is_left_and_everything_comes_back(text: str) -> None:
    redactor = Redactor(ALL)
    marked = redactor.text(text)
    assert list(recognise(marked, names=NAMES)) == []
    assert redactor.text(marked) == marked
    values = [value for mark, value in redactor.values.items() if value != mark]
    if len({value.casefold() for value in values}) == len(values) and not any(a in b for a, b in pairwise(values)):
        again = Redactor(ALL, redactor.values)
        assert again.text(restored(marked, redactor.values)) == marked


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), WRITTEN),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WRITTEN, inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=3), st.booleans())
def test_json_is_never_broken(value: list[object], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    marked = json.loads(Redactor(ALL).text(text))
    assert len(marked) == len(value)
    if not any(recognise(json.dumps(value, ensure_ascii=False), names=NAMES)) and not {"[", "\\"} & set(text[1:]):
        assert marked == value
