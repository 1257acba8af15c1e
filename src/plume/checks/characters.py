"""D107: characters that came from a wrong conversion, cannot be seen, or are written in two ways.

A table of the distinct unusual characters of a batch, made in one pass, tells whether its rows need looking at.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy

from plume.checks.rules import Batch, survey
from plume.checks.tally import Tally, quoted, share
from plume.types import Example, Finding, Source

# What UTF-8's bytes 80 to BF look like once read as Windows-1252, or as Latin-1 where that has no character.
_TAIL = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_GARBLED = re.compile(
    rf"[ÃÅÄ][{_TAIL}](?<![ÅÄ]\u00a0)|Â[\u0080-\u00bf]|(?:(?<=\s)|^)Ã(?= [a-z])|â€[{_TAIL}]?"
    rf"|â(?:‚¬|„¢|†[{_TAIL}]|ˆ[{_TAIL}])|ï»¿|ï¿½|ðŸ[{_TAIL}]{{2}}|(?:[ÐÑ][{_TAIL}]){{2}}|(?:[ÎÏ][{_TAIL}]){{2}}|(?:[ã-é][{_TAIL}]{{2}}){{2}}"
)
_LEADS, _EURO_LEADS, _OTHER_LEADS = frozenset("ÃÂÅÄðÐÑ"), frozenset("âï"), frozenset("ÎÏãäåæçèé")
_ODD_TAIL = frozenset(_TAIL.replace("\u0080-\u00bf", "¡¢£¤¥¦§¨©ª¬\xad®¯±²³´µ¶·¸¹º¼½¾¿")) - frozenset("…‘’“”–—œŒ")
_CLOSING = frozenset("“”’‘…«»›–—•")
_BYTES_1252 = {bytes([n]).decode("cp1252", "replace"): n for n in range(128, 256) if n not in (129, 141, 143, 144, 157)}

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")
_CONTROL_SIGNS = frozenset(map(chr, (*range(9), 11, 12, *range(13, 32), *range(127, 160))))
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|(?<![\U0001f3f4\U000e0001-\U000e007f])[\U000e0001-\U000e007f]+"
)
_INVISIBLE_SIGNS = frozenset("\u00ad\u061c\u180e\u2028\u2029\ufeff\udb40") | frozenset(
    map(chr, (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A)))
)
_JOINERS = "\u200c\u200d"
_MARKS = "\u061c\u200e\u200f"
_SPACES = {" ": "an ordinary space", "\u00a0": "a no-break space", "\u202f": "a narrow no-break space"}


def _codes(text: str) -> Any:
    return numpy.frombuffer(text.encode("utf-16-le", "surrogatepass"), numpy.uint16)


def _unusual(codes: Any) -> frozenset[str]:
    """The distinct UTF-16 units that are not printable ASCII."""
    rare = codes[(codes < 32) | (codes > 126)]
    return frozenset(map(chr, numpy.flatnonzero(numpy.bincount(rare, minlength=1)).tolist()))


def _garbled(text: str) -> str | None:
    for match in _GARBLED.finditer(text):
        found = match.group()
        before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        if (
            found[0] in "ÃÅÄ"
            and not after.isalpha()
            and (before.isupper() or found[0] != "Ã")
            and found[-1] in _CLOSING
        ):
            continue  # a capital before a closing mark: MAÇÃ”, »Å«
        return found
    return None


def _restored(text: str) -> str | None:
    """The text that was meant, when its bytes tell."""
    try:
        return bytes(_BYTES_1252.get(character, ord(character)) for character in text).decode("utf-8")
    except ValueError:
        return None


def _bare_control(text: str) -> str | None:
    match = _CONTROL.search(text)
    return match.group() if match else None


def _invisible(text: str) -> str | None:
    for match in _INVISIBLE.finditer(text):
        found, before = match.group(), text[match.start() - 1 : match.start()]
        after = text[match.end() : match.end() + 1]
        if found in _JOINERS and before and after and (_joins(before) and (found == "\u200c" or _joins(after))):
            continue
        near = text[max(match.start() - 40, 0) : match.end() + 40]
        if found in _MARKS and any(unicodedata.bidirectional(character) in ("R", "AL") for character in near):
            continue
        return found
    return None


def _joins(character: str) -> bool:
    """May a joiner stand beside it: a symbol that emoji are made of, or a letter of a script whose letters join?"""
    return (
        character == "\ufe0f"
        or "\u2190" <= character <= "\u2bff"
        or "\U0001f000" <= character <= "\U0001faff"
        or "\u0600" <= character <= "\u08ff"
        or "\u0900" <= character <= "\u0dff"
        or "\u1000" <= character <= "\u109f"
        or "\u1780" <= character <= "\u18af"
    )


def _replaced(text: str) -> str | None:
    return "\ufffd" if "\ufffd" in text else None


def _decomposed(text: str) -> str | None:
    if unicodedata.is_normalized("NFC", text):
        return None
    composed = unicodedata.normalize("NFC", text)
    start = next((n for n, pair in enumerate(zip(text, composed, strict=False)) if pair[0] != pair[1]), 0)
    end = start + 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return text[start:end]


def _say_garbled(found: str) -> tuple[str, str]:
    meant = _restored(found)
    reads = f", which was {meant!r}" if meant and meant.isprintable() else ""
    return f"{found!r} is UTF-8 read as Windows-1252{reads}", "convert the text back, or re-export it as UTF-8"


def _named(character: str) -> str:
    name = unicodedata.name(character[0], "control character").lower()
    return f"U+{ord(character[0]):04X} ({name})"


def _say_control(found: str) -> tuple[str, str]:
    return f"the text holds {_named(found)}, left over from a copy or conversion", "remove it"


def _say_invisible(found: str) -> tuple[str, str]:
    return f"the text holds {_named(found)}, which cannot be seen", "remove it"


def _say_replaced(_: str) -> tuple[str, str]:
    return "the text holds U+FFFD: a character was lost when the file was converted", "restore it from the original"


def _say_decomposed(found: str) -> tuple[str, str]:
    composed = unicodedata.normalize("NFC", found)
    parts = " + ".join(f"U+{ord(character):04X}" for character in found)
    said = f"{composed!r} is written as {parts}: it looks like one character, and a model reads several"
    return said, "normalise the text to Unicode's form NFC"


@dataclass(frozen=True)
class _Fault:
    """One way for characters to be wrong: its signs, what it finds in a text, and what is said of that."""

    name: str
    signs: Callable[[frozenset[str]], bool]
    find: Callable[[str], str | None]
    say: Callable[[str], tuple[str, str]]


def _may_decompose(unusual: frozenset[str]) -> bool:
    return any(
        unicodedata.combining(character)
        or "\u1161" <= character <= "\u11ff"
        or not unicodedata.is_normalized("NFC", character)
        for character in unusual
    )


def _may_be_garbled(unusual: frozenset[str]) -> bool:
    return bool(unusual & _LEADS or (unusual & (_EURO_LEADS | _OTHER_LEADS) and unusual & _ODD_TAIL))


_FAULTS = (
    _Fault("garbled", _may_be_garbled, _garbled, _say_garbled),
    _Fault("control", lambda unusual: bool(unusual & _CONTROL_SIGNS), _bare_control, _say_control),
    _Fault("invisible", lambda unusual: bool(unusual & _INVISIBLE_SIGNS), _invisible, _say_invisible),
    _Fault("replaced", lambda unusual: "\ufffd" in unusual, _replaced, _say_replaced),
    _Fault("decomposed", _may_decompose, _decomposed, _say_decomposed),
)


@survey("D107")
@dataclass
class Characters:
    """Text that went through a wrong conversion, or holds what cannot be seen."""

    rows: int = 0
    tallies: dict[str, Tally] = field(default_factory=lambda: {fault.name: Tally() for fault in _FAULTS})

    def see(self, batch: Batch) -> None:
        self.rows += len(batch.examples)
        unusual = _unusual(_codes(batch.text))
        for fault in _FAULTS:
            if fault.signs(unusual):
                for example in batch.examples:
                    self._look(fault, example)

    def _look(self, fault: _Fault, example: Example) -> None:
        for message in example.messages:
            if message.content.isascii() and fault.name != "control":
                continue
            found = fault.find(message.content)
            if found is None:
                continue
            if fault.name == "control" and _garbled(message.content):
                return  # said already: the second half of a garbled character
            said, hint = fault.say(found)
            self.tallies[fault.name].add(Finding("D107", "warning", example.source, said, hint, quote=found))
            return

    def merge(self, later: Self) -> None:
        self.rows += later.rows
        for name, tally in later.tallies.items():
            self.tallies[name].merge(tally)

    def findings(self) -> Iterator[Finding]:
        for tally in self.tallies.values():
            yield from tally.findings(self.rows)


@survey("D107")
@dataclass
class Spacing:
    """What stands before `?`, `!`, `:` and `;`: one kind of space for each, throughout a file."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, Source] = field(default_factory=dict)

    def see(self, batch: Batch) -> None:
        codes = _codes(batch.text)
        marks = numpy.flatnonzero((codes == 63) | (codes == 33) | (codes == 58) | (codes == 59))
        pairs = codes[marks[marks > 0] - 1].astype(numpy.uint32) << 8 | codes[marks[marks > 0]]
        pairs = pairs[((pairs >> 8) == 32) | ((pairs >> 8) == 0xA0) | ((pairs >> 8) == 0x202F)]
        values, counts = numpy.unique(pairs, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            pair = chr(value >> 8) + chr(value & 0xFF)
            if pair not in self.first:
                example = next((e for e in batch.examples if any(pair in m.content for m in e.messages)), None)
                if example is None:
                    continue  # the mark begins a text, the space is not its own
                self.first[pair] = example.source
            self.counts[pair] = self.counts.get(pair, 0) + count

    def merge(self, later: Self) -> None:
        self.first = {**later.first, **self.first}
        for pair, count in later.counts.items():
            self.counts[pair] = self.counts.get(pair, 0) + count

    def findings(self) -> Iterator[Finding]:
        for mark in "?!:;":
            kinds = sorted((pair for pair in self.counts if pair[1] == mark), key=lambda pair: self.counts[pair])
            if len(kinds) < 2:
                continue
            odd, usual = kinds[0], kinds[-1]
            yield Finding(
                "D107",
                "warning",
                self.first[odd],
                f"{quoted(mark)} follows {_SPACES[odd[0]]} in "
                f"{share(self.counts[odd], sum(self.counts[pair] for pair in kinds))} places, "
                f"{_SPACES[usual[0]]} elsewhere: to a model these are different texts",
                "use one of them throughout, and the same when asking",
                (self.first[usual],),
                quote=odd,
            )
