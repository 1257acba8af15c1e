"""What cannot be enforced is refused with a reason, soon."""

from typing import Any, cast

import pytest

from constrained import answer, bundle, bundle_of
from plume.errors import UserError
from plume.generation import constrain
from plume.text.tokenizer import train_tokenizer

REFUSED = [
    ({"not": {"pattern": "a"}}, "not at /not"),
    ({"properties": {"a/b": {"uniqueItems": True}}}, "uniqueItems at /properties/a~1b/uniqueItems"),
    ({"if": {}, "then": {}}, "if at /if"),
    ({"items": {"contains": {}}}, "contains at /items/contains"),
    ({"anyOf": [{}, {"minContains": 2}]}, "minContains at /anyOf/1/minContains"),
    (
        {"$ref": "#/$defs/x", "$defs": {"x": {"propertyNames": {"minLength": 2}}}},
        "propertyNames at /$defs/x/propertyNames",
    ),
    ({"items": {"$ref": "#x"}, "$defs": {"a": {"$anchor": "x", "not": {"pattern": "a"}}}}, "not at /$defs/a/not"),
    ({"unevaluatedProperties": False}, "unevaluatedProperties at /unevaluatedProperties"),
    ({"$dynamicRef": "#x"}, r"\$dynamicRef at /\$dynamicRef"),
    ({"type": "string", "format": "regex"}, "format 'regex' at /format"),
    ({"oneOf": [{"minLength": 1}, {"maxLength": 3}]}, "oneOf.*/oneOf"),
    ({"type": "number", "minimum": 1e300}, "minimum at /minimum"),
    ({"type": "string", "pattern": "a(?=x)y"}, r"look-around.* is not supported: \(\?= \(pattern at /pattern\)"),
    ({"type": "string", "pattern": r"(a)\1"}, r"backreferences are not supported: \\1 \(pattern at /pattern\)"),
    ({"enum": []}, "."),
    (False, "."),
    ({"type": "strin"}, "cannot be used.*at /type"),
    ({"allOf": 5}, "cannot be used.*at /allOf"),
    ({"items": {"$ref": "#/$defs/nowhere"}}, r"cannot be used.*\$ref at /items/\$ref"),
    ({"minProperties": 1, "properties": {"a": {}}}, "minProperties at /minProperties"),
    ({"$ref": "https://example.com/else.json"}, "nothing is fetched"),
    ({"$ref": "#"}, "leads back to itself"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "leads back to itself"),
    (
        {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
        r"\$ref # at /properties/n/\$ref never comes to an end",
    ),
    (
        {"type": ["object"], "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
        "at /properties/n/.* comes to an end",
    ),
    (
        {"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["n"]},
        "at /additionalProperties/.* comes to an end",
    ),
    (
        {"type": "object", "additionalProperties": {"$ref": "#"}, "minProperties": 1},
        "at /additionalProperties/.* comes to an end",
    ),
    (
        {"$ref": "#a", "$defs": {"x": {"$anchor": "a", "type": "array", "items": {"$ref": "#a"}, "minItems": 1}}},
        r"\$ref #a at /\$ref never comes to an end",
    ),
    (
        {"$ref": "#a", "$defs": {"x": {"$anchor": "a", "$ref": "#a"}}},
        r"\$ref #a at /\$defs/x/\$ref leads back to itself",
    ),
    ({"const": float("nan")}, "not JSON"),
    ({"const": "\ud800"}, "not JSON"),
]


@pytest.mark.parametrize(("schema", "reason"), REFUSED)
def test_what_cannot_be_enforced_is_refused_by_name_and_place(schema: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason.replace("$", r"\$") if "\\" not in reason else reason):
        constrain.json_schema(schema, bundle("bpe"))


HINTS = [
    ({"items": {"$ref": "#/$defs/nowhere"}}, "every $ref must lead to a part of the schema itself"),
    ({"$ref": "https://example.com/else.json"}, "every $ref must lead to a part of the schema itself"),
    ({"type": "strin"}, "see json-schema.org for what this keyword may hold"),
    ({"required": {"$ref": "#/$defs/a"}, "$defs": {"a": {}}}, "see json-schema.org for what this keyword may hold"),
    ({"$schema": "http://example.com/mine"}, "let $schema name a draft of json-schema.org, or leave it out"),
]


@pytest.mark.parametrize(("schema", "hint"), HINTS)
def test_a_hint_belongs_to_the_fault(schema: Any, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        constrain.json_schema(schema, bundle("bpe"))
    assert raised.value.hint == hint


def test_a_schema_that_is_too_deep_is_named_in_few_words() -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(150):
        schema = {"type": "object", "properties": {"quite a long name": schema}}
    with pytest.raises(
        UserError, match=r"over 100 levels deep at /properties/quite a long name/.* … .*name$"
    ) as raised:
        constrain.json_schema(schema, bundle("bpe"))
    assert len(raised.value.message) < 200


def product(depth: int) -> dict[str, Any]:
    parts = [{"properties": {f"k{i}{j}": True}, "required": [f"k{i}{j}"]} for i in range(depth) for j in range(3)]
    return {"allOf": [{"anyOf": parts[at : at + 3]} for at in range(0, len(parts), 3)]}


def doubling(depth: int) -> dict[str, Any]:
    parts: dict[str, Any] = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(depth)}
    return {"$ref": "#/$defs/a0", "$defs": {**parts, f"a{depth}": {}}}


def doubled_object(depth: int) -> dict[str, Any]:
    def twice(i: int) -> dict[str, Any]:
        inner = {"$ref": f"#/$defs/a{i + 1}"}
        return {"type": "object", "properties": {"x": inner, "y": inner}, "required": ["x", "y"]}

    return {"$ref": "#/$defs/a0", "$defs": {**{f"a{i}": twice(i) for i in range(depth)}, f"a{depth}": {"type": "null"}}}


BLOWN = {
    "product": product(30),
    "doubling": doubling(40),
    "doubled object": doubled_object(40),
    "repeats": {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
    "long": {"type": "string", "minLength": 10**9},
    "large": {"enum": ["x" * 2**21]},
}


@pytest.mark.parametrize("name", BLOWN)
def test_a_schema_that_blows_up_ends_in_an_error(name: str) -> None:
    with pytest.raises(UserError):
        constrain.json_schema(BLOWN[name], bundle("bpe"))


def test_an_answer_is_completed_even_where_the_matcher_gives_up() -> None:
    made = constrain.json_schema({"type": "string", "pattern": "^(.*a.{60}|.*b.{59})$"}, bundle("bpe"))
    for seed in range(2):
        assert made.valid(answer(made, bundle("bpe"), made.shortest + 40, seed))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda b: constrain.regex("a(", b), r"unclosed group: \($"),
        (lambda b: constrain.regex("x" * 500 + "[z-a]", b), r"invalid character class range.*: z-a$"),
        (lambda b: constrain.grammar('start: "a" b\nb: /x(?<=y)/\n', b), r"look-around.* is not supported: \(\?<=$"),
        (lambda b: constrain.grammar("begin: ", b), "start"),
    ],
)
def test_broken_patterns_and_grammars_are_refused_with_the_reason(make: Any, reason: str) -> None:
    with pytest.raises(UserError, match=f"cannot be enforced: .*{reason}"):
        make(bundle("bpe"))


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_vocabulary_that_cannot_write_an_answer_is_refused_with_what_it_lacks(kind: str) -> None:
    lacking = bundle_of(train_tokenizer(cast(Any, kind), ["plain words, nothing else"], 100))
    with pytest.raises(UserError, match=r"cannot write '\{"):
        constrain.json_schema({"type": "object"}, lacking)
