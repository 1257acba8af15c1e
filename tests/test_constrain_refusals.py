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
    ({"$defs": {"x": {"propertyNames": {"minLength": 2}}}}, "propertyNames at /$defs/x/propertyNames"),
    ({"unevaluatedProperties": False}, "unevaluatedProperties at /unevaluatedProperties"),
    ({"$dynamicRef": "#x"}, r"\$dynamicRef at /\$dynamicRef"),
    ({"type": "string", "format": "regex"}, "format 'regex' at /format"),
    ({"oneOf": [{"minLength": 1}, {"maxLength": 3}]}, "oneOf.*/oneOf"),
    ({"type": "number", "minimum": 1e300}, "minimum at /minimum"),
    ({"type": "string", "pattern": "(?=x)y"}, "pattern|lookaround|regex"),
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
        "/n/.* never comes to an end",
    ),
    ({"const": float("nan")}, "not JSON"),
    ({"const": "\ud800"}, "not JSON"),
]


@pytest.mark.parametrize(("schema", "reason"), REFUSED)
def test_what_cannot_be_enforced_is_refused_by_name_and_place(schema: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason.replace("$", r"\$") if "\\" not in reason else reason):
        constrain.json_schema(schema, bundle("bpe"))


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


@pytest.mark.parametrize("make", [lambda b: constrain.regex("(", b), lambda b: constrain.grammar("begin: ", b)])
def test_broken_patterns_and_grammars_are_refused(make: Any) -> None:
    with pytest.raises(UserError, match="cannot be enforced"):
        make(bundle("bpe"))


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_vocabulary_that_cannot_write_an_answer_is_refused_with_what_it_lacks(kind: str) -> None:
    lacking = bundle_of(train_tokenizer(cast(Any, kind), ["plain words, nothing else"], 100))
    with pytest.raises(UserError, match=r"cannot write '\{"):
        constrain.json_schema({"type": "object"}, lacking)
