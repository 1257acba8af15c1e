"""Constraints hold for the worst picker there is: any allowed token, by chance, at any limit."""

import json
import random
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from constrained import answer, bundle, says
from plume.errors import UserError
from plume.generation import constrain
from plume.generation.constrain import compiled
from plume.generation.constrain.ending import shorten
from plume.generation.constrain.vocabulary import vocabulary
from plume.types import Constraint

ADDRESS = {
    "type": "object",
    "properties": {
        "ville": {"type": "string", "minLength": 2, "maxLength": 12},
        "code": {"type": "string", "pattern": "^[0-9]{2} [0-9]{3}$"},
        "pays": {"enum": ["France", "Côte d’Ivoire", "Québec"]},
        "étages": {"type": "integer", "minimum": 1, "maximum": 40},
    },
    "required": ["ville", "code", "pays"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, Any] = {
    "anything": {},
    "string": {"type": "string"},
    "number": {"type": "number"},
    "address": ADDRESS,
    "open object": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "z"]},
    "map": {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 3, "maxProperties": 5},
    "named by pattern": {
        "type": "object",
        "patternProperties": {"^[xy]$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 2,
    },
    "tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "v": {"type": "integer"},
                },
                "required": ["left", "v"],
                "additionalProperties": False,
            }
        },
    },
    "list": {"type": "array", "items": {"type": "number", "multipleOf": 0.25}, "minItems": 2, "maxItems": 6},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"const": {"k": [1, "é"]}}],
        "items": False,
        "minItems": 2,
    },
    "draft 4": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "number",
        "minimum": 3,
        "exclusiveMinimum": True,
        "maximum": 4,
    },
    "narrow": {"type": "number", "exclusiveMinimum": 5, "exclusiveMaximum": 5.001},
    "choice of objects": {
        "anyOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": "a"}, "long": {"type": "string"}},
                "required": ["kind", "long"],
            },
            {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        ]
    },
    "within": {"type": "string", "pattern": "gare|port"},
    "two patterns": {"type": "string", "allOf": [{"pattern": "x"}, {"pattern": "[0-9]{2}"}]},
    "spaces": {"type": "string", "pattern": r"^\S\s\S$"},
    "long": {"type": "string", "minLength": 30},
    "exactly": {"type": "string", "minLength": 21, "maxLength": 21},
    **{
        f"format {name}": {"type": "string", "format": name}
        for name in ("date", "date-time", "time", "email", "hostname", "uri", "uri-reference", "ipv4", "ipv6", "uuid")
    },
    "all formats": {"type": "array", "items": {"type": "string", "format": "duration"}, "minItems": 1},
}
MORE = (0, 1, 3, 10, 64)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("kind", ["bpe", "byte-fallback"])
def test_every_answer_is_valid_at_every_limit(name: str, kind: str) -> None:
    made = constrain.json_schema(SCHEMAS[name], bundle(kind))
    for more in MORE:
        for seed in range(2):
            text = answer(made, bundle(kind), made.shortest + more, seed)
            assert made.valid(text), (more, seed, text)


@pytest.mark.parametrize("name", ["address", "tree", "map", "anything", "within"])
def test_what_fits_can_be_completed_in_the_room_it_was_given(name: str) -> None:
    made = constrain.json_schema(SCHEMAS[name], bundle("bpe"))
    chance = random.Random(1)
    constraint: Constraint = made.start()
    for room in range(made.shortest + 10, 0, -1):
        allowed = [id for id in constraint.allowed_V().nonzero().flatten().tolist() if id not in bundle("bpe").stop_ids]
        fitting = [id for id in chance.sample(allowed, min(12, len(allowed))) if constraint.fits(id, room - 1)]
        for id in fitting:
            other = constraint.fork()
            other.advance(id)
            end = other.shortest_end()
            assert len(end) <= room - 1
            for left, last in enumerate(end):
                assert other.allowed_V()[last]
                other.advance(last)
                assert len(other.shortest_end()) <= len(end) - left - 1
            assert other.accepting
        if constraint.done or not (fitting or constraint.shortest_end()):
            break
        constraint.advance(fitting[0] if fitting else constraint.shortest_end()[0])


@pytest.mark.parametrize("seed", [10, 28, 43])
def test_the_ending_that_made_a_token_fit_is_kept(seed: int) -> None:
    """A token may begin the known ending and yet need another one to fit."""
    listed = {"type": ["array", "null"], "items": {"type": ["string", "null"]}}
    properties = {"nonResourceURLs": listed, "resources": listed, "verbs": {**listed, "type": "array"}}
    made = constrain.json_schema({"type": "object", "properties": properties, "required": ["verbs"]}, bundle("bpe"))
    text = answer(made, bundle("bpe"), made.shortest + 14, seed)
    assert made.valid(text), text


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_shortest_answer_is_one(name: str) -> None:
    made = constrain.json_schema(SCHEMAS[name], bundle("bpe"))
    constraint = made.start()
    count = 0
    while end := constraint.shortest_end():
        constraint.advance(end[0])
        count += 1
    assert constraint.accepting
    assert count == made.shortest


SHORTEST = {
    "anything": "0",
    "string": '""',
    "address": '{"ville":"aa","code":"00 000","pays":"France"}',
    "tree": '{"left":null,"v":0}',
    "tuple": '["",{"k":[1,"é"]}]',
    "choice of objects": '{"kind":"b"}',
    "within": '"gare"',
    "format date": '"2000-01-01"',
}


@pytest.mark.parametrize("name", SHORTEST)
def test_the_shortest_answer_is_as_short_as_can_be(name: str) -> None:
    made = constrain.json_schema(SCHEMAS[name], bundle("bpe"))
    assert len(made.first.decode()) == len(SHORTEST[name])


def test_near_the_limit_a_place_is_searched_once_however_much_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[bytes] = []

    def counted(here: Any, ending: bytes, *rest: Any) -> bytes:
        searches.append(ending)
        return shorten(here, ending, *rest)

    made = constrain.json_schema(ADDRESS, bundle("bpe"))
    monkeypatch.setattr(compiled, "shorten", counted)
    constraint, room = made.start(), made.shortest
    while not constraint.done and room:
        room -= 1
        for id in constraint.allowed_V().nonzero().flatten().tolist():
            constraint.fits(id, room)
        constraint.advance(constraint.shortest_end()[0])
    assert made.shortest - room == made.shortest
    assert 0 < len(searches) <= 2 * made.shortest


def test_with_room_answers_are_not_the_shortest_document() -> None:
    made = constrain.json_schema(ADDRESS, bundle("bpe"))
    texts = {answer(made, bundle("bpe"), 200, seed) for seed in range(5)}
    assert len(texts) == 5
    assert all(len(text) > len(made.first) for text in texts)


def test_a_limit_ends_the_answer_without_cutting_it() -> None:
    made = constrain.json_schema({"type": "array", "items": {"type": "string"}}, bundle("bpe"))
    for limit in range(made.shortest, 40):
        assert made.valid(answer(made, bundle("bpe"), limit, limit, patience=1.0))


def test_forks_go_their_own_ways() -> None:
    constraint = constrain.choice(["oui", "non"], bundle("bpe")).start()
    other = constraint.fork()
    for id in bundle("bpe").tokenizer.encode("oui"):
        constraint.advance(id)
    for id in bundle("bpe").tokenizer.encode("non"):
        other.advance(id)
    assert constraint.accepting
    assert constraint.done
    assert other.done


def test_an_id_that_is_not_allowed_cannot_be_taken() -> None:
    constraint = constrain.json_schema({"type": "integer"}, bundle("bpe")).start()
    with pytest.raises(ValueError, match="not allowed"):
        constraint.advance(bundle("bpe").tokenizer.encode("x")[0])
    assert not constraint.fits(bundle("bpe").tokenizer.encode("x")[0], 100)


def test_the_spaces_of_json_dumps_are_allowed_and_no_others() -> None:
    made = constrain.json_schema({"type": "object", "properties": {"a": {}}}, bundle("bpe"))
    assert says(made, bundle("bpe"), '{"a": [1, {"b": null}]}')
    assert says(made, bundle("bpe"), '{"a":[1,{"b":null}]}')
    assert not says(made, bundle("bpe"), '{"a":  1}')
    assert not says(made, bundle("bpe"), '{"a":\n1}')
    assert not says(made, bundle("bpe"), '{"a":1} ')


def test_no_key_stands_twice_however_it_is_written() -> None:
    made = constrain.json_schema({"type": "object"}, bundle("bpe"))
    assert says(made, bundle("bpe"), '{"a":1,"b":2}')
    assert not says(made, bundle("bpe"), '{"a":1,"a":2}')
    assert not says(made, bundle("bpe"), '{"a":{"a":1},"a":2}')
    assert not made.valid('{"a":1,"a":2}')


@pytest.mark.parametrize("text", ["1e999", "0.123456789012345678901234567890", "1e-300", "9" * 400, r'"\ud800"'])
def test_values_that_cannot_be_read_back_are_not_written(text: str) -> None:
    assert not says(constrain.any_json(bundle("bpe")), bundle("bpe"), text)


def test_a_reply_may_begin_with_the_space_that_its_tokenizer_puts_there() -> None:
    made = constrain.json_schema({"type": "object"}, bundle("byte-fallback"))
    tokenizer = bundle("byte-fallback").tokenizer
    assert tokenizer.prepends_space
    marked = next(id for id in range(tokenizer.vocab_size) if tokenizer.token_bytes(id) == b" {")
    constraint = made.start()
    assert constraint.allowed_V()[marked]
    constraint.advance(marked)
    assert not constraint.allowed_V()[marked]
    chosen = constrain.choice(["aé"], bundle("byte-fallback"))
    assert {answer(chosen, bundle("byte-fallback"), 10, seed) for seed in range(8)} == {"aé"}


def test_notes_are_kept_out_of_the_way_and_named() -> None:
    schema = {"title": "T", "x-guidance": {"lenient": True}, "type": "string", "format": "plaque", "examples": [1]}
    made = constrain.json_schema(schema, bundle("bpe"))
    assert made.notes == ("format 'plaque' at /format has no meaning in JSON Schema",)


def test_compiled_grammars_are_kept() -> None:
    made = constrain.json_schema(ADDRESS, bundle("bpe"))
    assert constrain.json_schema(json.loads(json.dumps(ADDRESS)), bundle("bpe")) is made
    assert constrain.json_schema({**ADDRESS, "title": "autre"}, bundle("bpe")) is not made
    assert constrain.json_schema(ADDRESS, bundle("byte-fallback")) is not made


@pytest.mark.parametrize(
    "naming", [{"$anchor": "item"}, {"$id": "#item"}, {"id": "#item"}], ids=["$anchor", "$id", "id"]
)
def test_a_reference_may_lead_to_an_anchor(naming: dict[str, str]) -> None:
    draft = {"$anchor": "2020-12/schema", "$id": "draft-07/schema#", "id": "draft-04/schema#"}[next(iter(naming))]
    host = "https" if "2020" in draft else "http"
    base = {"$schema": f"{host}://json-schema.org/{'draft/' if host == 'https' else ''}{draft}"}
    made = constrain.json_schema(
        {**base, "allOf": [{"$ref": "#item"}], "definitions": {"x": {**naming, "type": "integer"}}}, bundle("bpe")
    )
    assert says(made, bundle("bpe"), "12")
    assert not says(made, bundle("bpe"), '"a"')
    assert made.valid("12")


def test_a_definition_that_nothing_refers_to_is_not_looked_at() -> None:
    impossible = {"not": {"pattern": "a"}}
    named = {"x": impossible, "y": {"type": "string", "pattern": "(?=a)"}, "z": {"$ref": "#/$defs/x"}}
    made = constrain.json_schema({"$ref": "#/$defs/i", "$defs": {**named, "i": {"type": "integer"}}}, bundle("bpe"))
    assert answer(made, bundle("bpe"), 8, 0).lstrip("-").isdigit()
    listed = {"type": "array", "items": {"$ref": "#/definitions/a/$defs/b"}, "minItems": 1}
    deep = {"a": {"$defs": {"b": {"type": "null"}, "c": impossible}}}
    assert constrain.json_schema({**listed, "definitions": deep}, bundle("bpe")).first == b"[null]"
    for path, refers in {"": "#/$defs/x", "https://example.com/s": "https://example.com/s#/$defs/x"}.items():
        with pytest.raises(UserError, match="not at /"):
            constrain.json_schema({"$id": path, "items": {"$ref": refers}, "$defs": named}, bundle("bpe"))


def test_a_property_may_be_called_as_definitions_are() -> None:
    schema = {
        "type": "object",
        "properties": {"definitions": {"$ref": "#/properties/$defs"}, "$defs": {"type": "boolean"}},
        "required": ["definitions"],
    }
    made = constrain.json_schema(schema, bundle("bpe"))
    assert says(made, bundle("bpe"), '{"definitions":true}')
    assert not says(made, bundle("bpe"), '{"definitions":1}')


def test_many_threads_compile_a_schema_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compile, together = constrain._compiled, threading.Barrier(5)
    speaker = bundle("bpe")
    calls: list[str] = []

    def counted(source: Any, *rest: Any) -> Any:
        calls.append(source.name)
        return compile(source, *rest)

    def met(asked: Any) -> Any:
        together.wait(30)
        return vocabulary(asked)

    monkeypatch.setattr(constrain, "_compiled", counted)
    monkeypatch.setattr(constrain, "vocabulary", met)
    schema = {"type": "array", "items": {"type": "string", "maxLength": 17}}
    made: list[Any] = []

    def ask() -> None:
        made.append(constrain.json_schema(schema, speaker))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert all(one is made[0] for one in made)
    assert len(made) == 5


def test_whoever_waits_for_a_schema_is_refused_at_the_deadline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    over, speaker = threading.Event(), bundle("bpe")
    monkeypatch.setattr(constrain, "_compiled", lambda *_: over.wait(30))
    monkeypatch.setattr(constrain, "_DEADLINE", 0.2)
    refused: list[str] = []

    def ask() -> None:
        with pytest.raises(UserError, match="to compile") as raised:
            constrain.json_schema({"type": "string", "maxLength": 19}, speaker)
        refused.append(raised.value.message)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    assert len(refused) == 3
    monkeypatch.undo()
    assert constrain.json_schema({"type": "string", "maxLength": 19}, speaker).valid('""')


def test_patterns_choices_and_grammars_hold_at_every_limit() -> None:
    lark = 'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[1-9][0-9]{0,3}/\n'
    doors = {
        "regex": constrain.regex(r"[A-Z][a-zé]{2,8}( [0-9]+)?", bundle("bpe")),
        "choice": constrain.choice(["oui", "non", "peut-être « oui »", 'a"\\\n'], bundle("bpe")),
        "grammar": constrain.grammar(lark, bundle("bpe")),
        "json": constrain.any_json(bundle("bpe")),
    }
    for name, made in doors.items():
        for more in MORE:
            text = answer(made, bundle("bpe"), made.shortest + more, more)
            assert made.valid(text), (name, more, text)
    assert doors["choice"].shortest == min(
        len(doors["choice"].ids(text.encode())) for text in ("oui", "non", "peut-être « oui »", 'a"\\\n')
    )
    assert not doors["grammar"].valid("1+")
    assert not doors["choice"].valid("ou")
    assert not doors["regex"].valid("A")


def test_what_patterns_and_choices_hold_is_text() -> None:
    odd = constrain.choice(["\x01\x7f\u2028é🐑", ""], bundle("bpe"))
    assert odd.shortest == 0
    assert says(odd, bundle("bpe"), "\x01\x7f\u2028é🐑")
    assert constrain.regex(".{300}", bundle("bpe")).valid("é" * 300)
    for broken in ("\ud800", 1):
        with pytest.raises(UserError, match="not text"):
            constrain.choice([cast(Any, broken)], bundle("bpe"))


@pytest.mark.parametrize("kind", ["char", "word"])
def test_small_vocabularies_work_where_they_can_write_an_answer(kind: str) -> None:
    small = bundle(kind)
    schema = {
        "type": "object",
        "properties": {"ville": {"type": "string"}, "ok": {"type": "boolean"}},
        "required": ["ville", "ok"],
        "additionalProperties": False,
    }
    made = constrain.json_schema(schema, small)
    for more in MORE:
        for seed in range(2):
            assert made.valid(answer(made, small, made.shortest + more, seed))


def test_masks_are_computed_for_forks_of_many_threads() -> None:
    made = constrain.json_schema(ADDRESS, bundle("bpe"))
    texts: dict[int, str] = {}

    def work(seed: int) -> None:
        texts[seed] = answer(made, bundle("bpe"), made.shortest + 5, seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {seed: answer(made, bundle("bpe"), made.shortest + 5, seed) for seed in range(4)}


PUBLIC = Path(__file__).parents[2] / "shared" / "data" / "json-schemas"


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="needs the public schemas")
def test_no_instance_that_a_public_schema_forbids_is_accepted() -> None:
    correct = 0
    files = sorted(PUBLIC.glob("*.json"))[::15]
    for file in files:
        data = json.loads(file.read_text(encoding="utf-8"))
        try:
            made = constrain.json_schema(data["schema"], bundle("bpe"))
        except UserError:
            continue
        said = [says(made, bundle("bpe"), json.dumps(test["data"], ensure_ascii=False)) for test in data["tests"]]
        assert not any(said[at] for at, test in enumerate(data["tests"]) if not test["valid"]), file.name
        correct += said == [test["valid"] for test in data["tests"]]
    assert correct >= 0.8 * len(files)
