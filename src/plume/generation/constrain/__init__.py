"""What an answer may say: JSON of a schema, any JSON, a regular expression, one of some texts, a grammar.

Each door compiles once for a bundle's tokenizer and keeps the result. Raises UserError for what cannot be enforced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits, regex_to_lark

from plume.errors import UserError
from plume.generation.constrain.compiled import Compiled
from plume.generation.constrain.ending import Walk, greedy, shorten
from plume.generation.constrain.schema import judge, prepare
from plume.generation.constrain.strict import Place
from plume.generation.constrain.vocabulary import Vocabulary, byte_tokens, vocabulary
from plume.models.bundle import Bundle

__all__ = ["any_json", "choice", "grammar", "json_schema", "regex"]

_JSON = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "json_allowed_escapes": 'nrbtf\\"u',
    "coerce_one_of": False,
    "lenient": False,
}
_ANY_CUT = '%llguidance {"no_forcing": true}\n'  # else a mask holds one way alone to cut what must come
_LONGEST = 100_000  # bytes of the shortest answer
_STEPS = 20_000  # of the search for it


def json_schema(schema: Mapping[str, Any] | bool, bundle: Bundle) -> Compiled:
    """Text that is JSON and that the schema allows (draft 2020-12 unless `$schema` names another)."""
    words = vocabulary(bundle)
    key = hashlib.sha256(json.dumps(schema, default=repr).encode()).hexdigest()
    return words.compiled(("schema", key), lambda: _schema(schema, words))


def _schema(schema: Mapping[str, Any] | bool, words: Vocabulary) -> Compiled:
    valid = judge(schema)
    prepared = prepare(schema)
    source = "start: %json " + json.dumps({"x-guidance": _JSON, **_object(prepared)})
    exact = any(f'"{name}"' in json.dumps(prepared) for name in ("exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
    return _compile(source, words, valid, Place(digits=15 if exact else 17), "the schema")


def any_json(bundle: Bundle) -> Compiled:
    """Text that is JSON."""
    return json_schema({}, bundle)


def regex(pattern: str, bundle: Bundle) -> Compiled:
    """Text that matches a regular expression from its beginning to its end (Rust's syntax, without lookaround)."""
    words = vocabulary(bundle)
    source = f"start: /{regex_to_lark(pattern)}/"
    return words.compiled(("regex", pattern), lambda: _compile(source, words, _accepted(source), None, "the pattern"))


def choice(options: Sequence[str], bundle: Bundle) -> Compiled:
    """One of some texts."""
    if not options or isinstance(options, str):
        raise UserError("a choice needs a list of texts")
    words = vocabulary(bundle)
    source = "start: " + " | ".join(json.dumps(option, ensure_ascii=False) for option in options)
    known = frozenset(options)
    return words.compiled(("choice", known), lambda: _compile(source, words, known.__contains__, None, "the choice"))


def grammar(lark: str, bundle: Bundle) -> Compiled:
    """Text of a context-free grammar in llguidance's dialect of Lark, from the rule `start`."""
    words = vocabulary(bundle)
    return words.compiled(("lark", lark), lambda: _compile(lark, words, _accepted(lark), None, "the grammar"))


def _object(schema: Any) -> dict[str, Any]:
    """A schema as an object: `true` allows everything, `false` nothing."""
    return schema if isinstance(schema, dict) else {} if schema else {"anyOf": []}


def _compile(source: str, words: Vocabulary, valid: Callable[[str], bool], place: Place | None, what: str) -> Compiled:
    limits = LLParserLimits(verbose_errors=False)
    bytewise = LLMatcher(byte_tokens(), LLMatcher.grammar_from_lark(source), log_level=0, limits=limits)
    if bytewise.is_error():
        raise UserError(f"{what} cannot be enforced: {_reason(bytewise)}", "simplify it")
    matcher = LLMatcher(words.tokens, LLMatcher.grammar_from_lark(_ANY_CUT + source), log_level=0, limits=limits)
    if matcher.is_error():
        raise UserError(f"{what} cannot be enforced: {_reason(matcher)}", "simplify it")
    here = Walk(bytewise.deep_copy(), place)
    first = greedy(here, _LONGEST)
    if first is None:
        raise UserError(f"no answer to {what} of at most {_LONGEST} bytes was found", "simplify it")
    first = shorten(here, first, _STEPS)
    if words.segment(first) is None:
        at = words.written(first)
        text = first[at:].decode("utf-8", errors="replace")[:20]
        raise UserError(f"this tokenizer cannot write {text!r}, which {what} needs", "use a byte-level tokenizer")
    return Compiled(words, matcher, bytewise, place, first, valid)


def _accepted(source: str) -> Callable[[str], bool]:
    """Whether a text is one of a grammar's, asked of a matcher of its own."""

    def valid(text: str) -> bool:
        ids = [*text.encode("utf-8", "surrogatepass"), 256]
        matcher = LLMatcher(byte_tokens(), LLMatcher.grammar_from_lark(source), log_level=0)
        return bool(matcher.validate_tokens(ids) == len(ids))

    return valid


def _reason(matcher: LLMatcher) -> str:
    return str(matcher.get_error()).split("\n")[0][:300]
