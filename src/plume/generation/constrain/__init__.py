"""What an answer may say: JSON of a schema, any JSON, a regular expression, one of some texts, a grammar.

Each door compiles once for a bundle's tokenizer and keeps the result. Raises UserError for what cannot be enforced.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark

from plume.errors import UserError
from plume.generation.constrain.compiled import Compiled
from plume.generation.constrain.ending import Walk, complete, shorten, tersest
from plume.generation.constrain.judge import judge
from plume.generation.constrain.places import places, unreadable
from plume.generation.constrain.schema import prepare, written
from plume.generation.constrain.strict import Place
from plume.generation.constrain.vocabulary import Vocabulary, byte_tokens, vocabulary
from plume.generation.constrain.witness import witnesses
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
_BROKEN = re.compile(r"regex parse error:\n(?P<shown>.*?)\nerror: (?P<reason>[^\n]+)", re.DOTALL)
_PLAINLY = {
    "oneOf constraints are not supported": "oneOf whose parts may hold together",
}
_LONGEST = 20_000  # bytes of the shortest answer
_STEPS = 50_000  # of the search for it
_STATES = 50_000  # of the automaton of strings, up to 2 kB each
_DEADLINE = 30  # seconds; limits on work end nearly everything sooner


class Source(NamedTuple):
    """What is compiled: its name in errors, its text in llguidance's Lark, the schema it comes from."""

    name: str
    lark: str
    schema: Any = None


def json_schema(schema: Mapping[str, Any] | bool, bundle: Bundle) -> Compiled:
    """Text that is JSON and that the schema allows (draft 2020-12 unless `$schema` names another)."""
    words = vocabulary(bundle)
    text = written(schema)
    return words.compiled(("schema", hashlib.sha256(text.encode()).hexdigest()), lambda: _schema(text, words))


def _schema(text: str, words: Vocabulary) -> Compiled:
    try:
        prepared = prepare(text)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        judge(text)  # says what is wrong with it
        raise
    valid = judge(text)
    source = json.dumps({"x-guidance": _JSON, **_object(prepared.schema)})
    place = Place(digits=15 if '"multipleOf"' in source or '"exclusiveM' in source else 17)
    made = _compile(Source("the schema", "start: %json " + source, prepared.schema), words, valid, place)
    return replace(made, notes=tuple(prepared.notes))


def any_json(bundle: Bundle) -> Compiled:
    """Text that is JSON."""
    return json_schema({}, bundle)


def regex(pattern: str, bundle: Bundle) -> Compiled:
    """Text that matches a regular expression from its beginning to its end (Rust's syntax, without lookaround)."""
    words = vocabulary(bundle)
    _check_text(pattern, "the pattern")
    source = f"start: /{regex_to_lark(pattern)}/"
    return words.compiled(
        ("regex", pattern), lambda: _compile(Source("the pattern", source), words, _accepted(source), None)
    )


def choice(options: Sequence[str], bundle: Bundle) -> Compiled:
    """One of some texts."""
    if not options or isinstance(options, str):
        raise UserError("a choice needs a list of texts")
    words = vocabulary(bundle)
    for option in options:
        _check_text(option, "an option")
    texts = ("".join(rf"\x{{{ord(character):x}}}" for character in option) for option in options)
    source = f"start: /{'|'.join(texts)}/"
    known = frozenset(options)
    return words.compiled(
        ("choice", known), lambda: _compile(Source("the choice", source), words, known.__contains__, None)
    )


def grammar(lark: str, bundle: Bundle) -> Compiled:
    """Text of a context-free grammar in llguidance's dialect of Lark, from the rule `start`."""
    words = vocabulary(bundle)
    _check_text(lark, "the grammar")
    return words.compiled(("lark", lark), lambda: _compile(Source("the grammar", lark), words, _accepted(lark), None))


def _check_text(text: str, name: str) -> None:
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise UserError(f"{name} is not text that UTF-8 can hold: {text!r}") from None


def _object(schema: Any) -> dict[str, Any]:
    """A schema as an object: `true` allows everything, `false` nothing."""
    return schema if isinstance(schema, dict) else {} if schema else {"anyOf": []}


def _compile(source: Source, words: Vocabulary, valid: Callable[[str], bool], place: Place | None) -> Compiled:
    """Raises UserError for what cannot be compiled within the limits, and for what the tokenizer cannot write."""
    done: Future[Compiled] = Future()

    def work() -> None:
        try:
            done.set_result(_compiled(source, words, valid, place))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()  # which nothing waits for once it is too late
    try:
        return done.result(timeout=_DEADLINE)
    except TimeoutError:
        raise UserError(f"{source.name} took more than {_DEADLINE} seconds to compile", "simplify it") from None


def _compiled(source: Source, words: Vocabulary, valid: Callable[[str], bool], place: Place | None) -> Compiled:
    bytewise = _matcher(byte_tokens(), source.lark, source)
    matcher = _matcher(words.tokens, _ANY_CUT + source.lark, source)
    guesses = witnesses(source.schema)
    here = Walk(bytewise.deep_copy(), place, guesses)
    first = complete(here, _LONGEST)
    if first is None:
        reason = here.error or f"no answer of at most {_LONGEST} bytes was found"
        raise UserError(f"{source.name} cannot be enforced: {reason}", "simplify it")
    least = shorten(here, first, _STEPS)
    first = tersest(here, [least, first], words)
    if first is None or words.segment(first, begun=not words.drops_space) is None:
        at = words.written(least)
        text = (least[at:] or least).decode("utf-8", errors="replace")[:20]
        raise UserError(
            f"this tokenizer cannot write {text!r}, which {source.name} needs", "use a byte-level tokenizer"
        )
    return Compiled(words, matcher, bytewise, place, first, valid, guesses)


def _matcher(tokens: LLTokenizer, lark: str, source: Source) -> LLMatcher:
    limits = LLParserLimits(max_lexer_states=_STATES, verbose_errors=False)
    matcher = LLMatcher(tokens, LLMatcher.grammar_from_lark(lark), log_level=0, limits=limits)
    if matcher.is_error():
        text = str(matcher.get_error())
        broken = _BROKEN.search(text)
        reason = text.split("\n")[0].rpartition("failed to compile JSON schema: ")[2][:300]
        place = unreadable(source.schema, _readable) if broken else places(reason, source.schema)
        reason = _unread(broken) if broken else _PLAINLY.get(reason.split(".")[0], reason)
        raise UserError(f"{source.name} cannot be enforced: {reason}{place}", "simplify it")
    return matcher


def _unread(broken: re.Match[str]) -> str:
    """Why the engine cannot read a regular expression, with the piece of it that the message marks."""
    pattern, _, marks = broken["shown"].partition("\n")
    piece = pattern[marks.find("^") : marks.rfind("^") + 1]
    return f"{broken['reason']}{f': {piece}' if piece.strip() else ''}"[:300]


def _readable(pattern: str) -> bool:
    source = json.dumps({"x-guidance": _JSON, "type": "string", "pattern": pattern})
    return not LLMatcher(byte_tokens(), LLMatcher.grammar_from_lark("start: %json " + source), log_level=0).is_error()


def _accepted(source: str) -> Callable[[str], bool]:
    """Whether a text is one of a grammar's, asked of a matcher of its own."""

    def valid(text: str) -> bool:
        ids = [*text.encode("utf-8", "surrogatepass"), 256]
        matcher = LLMatcher(byte_tokens(), LLMatcher.grammar_from_lark(source), log_level=0)
        return bool(matcher.validate_tokens(ids) == len(ids))

    return valid
