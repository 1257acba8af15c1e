"""Telephone numbers: international ones, national ones of France and its neighbours written as there, and those of
more countries that the text itself calls so."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from plume.redact.match import Match

_GAP = r"[ \u00a0\u202f./-]"
_WIDE = r"(?:[ \u00a0\u202f./-]| {2})"  # a space too many
# Read ahead, not over: two numbers may follow one another with only a space between them.
_INTERNATIONAL = re.compile(
    r"(?<![\w+])(?<!\(\+)(?=((?:\(?\+[ \u00a0]?|00[ \u00a0]?(?=[1-9]))\(?[1-9]"
    r"(?:[ \u00a0\u202f.()/-]{0,3}[0-9]){6,14})(?![0-9]))"
)
# 06 12 34 56 78, 0470 12 34 56, (020) 7946 0958: groups of digits with the same sign between all of them.
_GROUPED = re.compile(rf"(?<![\w+])(?=(\(?0[0-9]{{0,4}}\)?(?:{_WIDE}[0-9]{{2,6}}){{1,4}})(?![0-9]))")
_AFTER_DIGIT = re.compile(r"[0-9][ \u00a0\u202f.,/-]$")
_BEFORE_PAIR = re.compile(rf"{_GAP}[0-9]{{2}}(?![0-9])")
_ANOTHER = re.compile(rf"/0[1-9]{_GAP}[0-9]{{2}}")
_TEN_DIGITS = re.compile(r"(?<![\w+.,/-])0[1-9][0-9]{8}(?![\w]|[.,/-][0-9])")
_AMERICAN = re.compile(
    r"(?<![\w+.-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}(?P<gap>[.-]))"
    r"[2-9][0-9]{2}(?(gap)(?P=gap)|[ .-])[0-9]{4}(?![\w]|[.-][0-9])"
)
# 416 555 0125 is nothing but a telephone number where it stands alone; thousands are never four digits.
_SPACED_AMERICAN = re.compile(
    r"(?<![\w+.,/€$£-])(?<![0-9][ \u00a0])(?:1 )?[2-9][0-9]{2} [2-9][0-9]{2} [0-9]{4}(?![\w]|[.,/-][0-9]| ?[0-9€$£%])"
)
# What a text calls a telephone number need not be grouped as at home: `ph: 2125550183`, `my cell is 0151 2345 8967`.
_CALLED = re.compile(
    r"(?<![^\W_])(?:t[eé]\u0301?l(?:[eé]\u0301?phone)?|phone|ph|cell|mob|mobile|portable|landline|hotline|fixe|gsm|fax|handy|sms|whatsapp)\b"
    r"(?:[ \u00a0](?:number|num[eé]\u0301?ro|num|no|n°|is|est)){0,2}[ \u00a0]?[.:=]{0,2}[ \u00a0]?"
    r"(?P<number>\(?[0-9](?:[ \u00a0\u202f./()-]{0,2}[0-9]){8,12})(?![\w]|[.,/-][0-9])",
    re.I,
)
# Verbs say less: up to three words between, and the number in groups.
_TO_CALL = re.compile(
    r"(?<![^\W_])(?:call|ring|dial|(?:r?appel)(?:ez|er|le)|joindre)(?P<between>(?: [\w’'-]{1,15}){0,3})[ \u00a0]"
    r"(?P<number>\(?[0-9]{2,5}\)?(?:[ \u00a0\u202f.-][0-9]{2,5}){2,4})(?![\w]|[.,/-][0-9])",
    re.I,
)
_REFERENCE = re.compile(
    r"\b(?:isbn|issn|ean|réf\w*|ref|reference|id|siren|siret|facture|invoice|commande|order)\W{0,4}$", re.I
)

_FRANCE = ("FR", "GF", "GP", "MQ", "PM", "RE", "YT")  # numbers of overseas parts are not in the plan of FR
_COUNTRIES = (*_FRANCE, "BE", "CH", "GB")
_CALLED_COUNTRIES = (*_COUNTRIES, "US", "DE", "ES", "IT", "NL", "PT", "AT", "IE", "PL", "CZ", "LU", "SE", "FI", "GR")
_DIALLED_WITH_ZERO = (*_COUNTRIES, "DE", "IT", "NL", "IE")
_DIALLED_WITHOUT = ("US", "ES", "PT")
_BRITISH_GROUPS = {(5, 3, 3), (5, 6), (4, 3, 4), (3, 4, 4)}
_FRENCH_GROUPS = {(2, 2, 2, 2, 2), (4, 3, 3), (4, 2, 2, 2), (1, 3, 3, 3), (1, 3, 2, 2, 2)}
# Kept free for films and examples, which look real.
_FICTION = re.compile(r"\+3363998[0-9]{4}|\+44(?:7700900|1632960|8081570|9098790|3069990)[0-9]{3}")
_FEWEST = 8  # digits of an international number, country included


def phones(text: str) -> Iterator[Match]:
    """Valid numbers only (Google's libphonenumber knows every numbering plan)."""
    yield from _international(text)
    yield from _grouped(text)
    for match in _TEN_DIGITS.finditer(text):
        reference = match[0] == "0123456789" or _REFERENCE.search(text[max(0, match.start() - 20) : match.start()])
        if not reference and any(_national(match[0], country) for country in _FRANCE):
            yield Match("phone", match.start(), match.end(), match[0])
    for match in _AMERICAN.finditer(text):
        if _national(match[0], "US"):
            yield Match("phone", match.start(), match.end(), match[0])
    for match in _SPACED_AMERICAN.finditer(text):
        before = text[max(0, match.start() - 20) : match.start()]
        if not _REFERENCE.search(before) and _national(match[0], "US"):
            yield Match("phone", match.start(), match.end(), match[0])
    yield from _called(text)


def _called(text: str) -> Iterator[Match]:
    """Numbers of more countries, after a noun or a verb of telephoning."""
    for match in _CALLED.finditer(text):
        if any(_national(match["number"], country) for country in _CALLED_COUNTRIES):
            yield Match("phone", *match.span("number"), match["number"])
    for match in _TO_CALL.finditer(text):
        with_zero = match["number"].lstrip("(").startswith("0")
        countries = _DIALLED_WITH_ZERO if with_zero else _DIALLED_WITHOUT
        reference = _REFERENCE.search(match["between"])
        if not reference and any(_national(match["number"], country) for country in countries):
            yield Match("phone", *match.span("number"), match["number"])


def _international(text: str) -> Iterator[Match]:
    """The longest valid number from each start: `+33 6 12 34 56 78 2024` is a number and a year."""
    for match in _INTERNATIONAL.finditer(text):
        for candidate in _shorter_and_shorter(match[1]):
            digits = re.sub(r"[^0-9]", "", candidate)
            digits = digits if candidate.startswith(("+", "(+")) else digits.removeprefix("00")
            if len(digits) >= _FEWEST and _national("+" + _without_zero(candidate, digits)):
                yield Match("phone", match.start(), match.start() + len(candidate), candidate)
                break


def _grouped(text: str) -> Iterator[Match]:
    """National numbers that do not stand in a longer row of numbers; another telephone number may stand before."""
    last = -1
    for match in _GROUPED.finditer(text):
        start = match.start()
        if start < last or (start - 1 != last and _AFTER_DIGIT.search(text[max(0, start - 2) : start])):
            continue
        for candidate in _shorter_and_shorter(match[1]):
            if _is_grouped_as_at_home(candidate):
                end = start + len(candidate)
                another = "/" not in candidate and _ANOTHER.match(text, end)
                if another or not _BEFORE_PAIR.match(text, end):
                    last = end
                    yield Match("phone", start, last, candidate)
                break


def _shorter_and_shorter(candidate: str) -> Iterator[str]:
    """The candidate, then without its last group of digits, and so on; at most four."""
    ends = [group.end() for group in re.finditer(r"[0-9]+\)?", candidate)]
    for end in ends[:-5:-1]:
        if candidate.count("(", 0, end) == candidate.count(")", 0, end):
            yield candidate[:end]


def _without_zero(candidate: str, digits: str) -> str:
    """`+33 (0)6 12 …` holds a zero that is not dialled."""
    dialled = re.match(r"[^0-9]*([0-9]{1,3})[^0-9]*\(0\)", candidate)
    return digits[: len(dialled[1])] + digits[len(dialled[1]) + 1 :] if dialled else digits


def _is_grouped_as_at_home(candidate: str) -> bool:
    groups = tuple(re.findall(r"[0-9]+", candidate))
    gaps = re.findall(r"[^0-9()]+", candidate)
    if all(len(gap) > 1 for gap in gaps):
        return False
    if len({gap[:1] for gap in gaps}) != 1 or not 9 <= sum(map(len, groups)) <= 11:
        return False
    sizes = tuple(map(len, groups))
    for country in _COUNTRIES:
        if national := _national("".join(groups), country):
            home = tuple(map(len, re.findall(r"[0-9]+", national)))
            if sizes == home or (country in _FRANCE and sizes in _FRENCH_GROUPS):
                return True
            if country == "GB" and sizes in _BRITISH_GROUPS:
                return True
    return False


@functools.lru_cache(maxsize=4096)
def _national(number: str, country: str | None = None) -> str:
    """The number as its country writes it, empty when no such number can exist."""
    import phonenumbers  # 20 ms

    try:
        parsed = phonenumbers.parse(number, country)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_valid_number(parsed) and not _FICTION.fullmatch(
        phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    ):
        return ""
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
