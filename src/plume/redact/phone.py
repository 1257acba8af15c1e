"""Telephone numbers: international ones, national ones of France and its neighbours written as there, and those of
more countries that the text itself calls so."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from plume.redact.columns import values
from plume.redact.match import Match

_SIGNS = r" \u00a0\u202f\u2009./·\u2010\u2011\u2013-"
_GAP = rf"[{_SIGNS}]"
_WIDE = rf"(?:[{_SIGNS}]| {{2}})"  # a space too many
# Read ahead, not over: two numbers may follow one another with only a space between them.
_INTERNATIONAL = re.compile(
    r"(?<![\w+])(?<!\(\+)(?=((?:\(?\+[ \u00a0]?|00[ \u00a0]?(?=[1-9])|011[ -]?(?=[1-9]))\(?[1-9]"
    rf"(?:[(){_SIGNS}]{{0,3}}[0-9]){{6,14}})(?![0-9]))"
)
# 06 12 34 56 78, 0470 12 34 56, (020) 7946 0958: groups of digits with the same sign between all of them.
_GROUPED = re.compile(rf"(?<![\w+])(?=(\(?0[0-9]{{0,4}}\)?(?:{_WIDE}[0-9]{{2,6}}){{1,4}})(?![0-9]))")
_AFTER_DIGIT = re.compile(rf"[0-9][,{_SIGNS}]$")
# One more pair is one more group, unless it is a time of its own: 24h/24, 12s.
_BEFORE_PAIR = re.compile(rf"{_GAP}[0-9]{{2}}(?![0-9]|[ ]?(?:h|min|s)(?![^\W\d_]))")
_ANOTHER = re.compile(rf"/0[1-9]{_GAP}[0-9]{{2}}")
_TEN_DIGITS = re.compile(  # also two with a stroke between
    r"(?:(?<![\w+.,/-])|(?<=0[1-9][0-9]{8}/))0[1-9][0-9]{8}(?![\w]|[.,-][0-9]|/[0-9](?!(?<=0)[1-9][0-9]{8}(?![0-9])))"
)
_BRITISH_MOBILE = re.compile(r"(?<![\w+.,/-])07[1-9][0-9]{8}(?![\w]|[.,/-][0-9])")
_AMERICAN = re.compile(
    r"(?<![\w+.-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}(?P<gap>[.-]))"
    r"[2-9][0-9]{2}(?(gap)(?P=gap)|[ .-])[0-9]{4}(?![\w]|[.-][0-9])"
)
# 416 555 0125 is nothing but a telephone number where it stands alone; thousands are never four digits.
_SPACED_AMERICAN = re.compile(
    r"(?<![\w+.,/€$£-])(?<![0-9][ \u00a0])(?:1 )?[2-9][0-9]{2} [2-9][0-9]{2} [0-9]{4}(?![\w]|[.,/-][0-9]| ?[0-9€$£%])"
)
# What a text calls a telephone number need not be grouped as at home: `ph: 2125550183`, `my cell is 0151 2345 8967`.
_LINE = (
    r"(?:t[eé]\u0301?l(?:[eé]\u0301?phone)?|phone|ph|cell(?:phone)?|mob|mobile|portable|landline|hotline|fixe|gsm|fax|handy|sms"
    r"|whatsapp|standard|voicemail)"
)
_DIGITS = rf"\(?[0-9](?:[() ]{{0,2}}[{_SIGNS}]?[0-9]){{8,12}}"
_IS = r"\\?[\"'*]{0,3}(?:[ \t\u00a0]{0,3}(?:[.:=|→>…_–—-][ \t\u00a0]?){0,40}|[ \t]{4,30})\\?[\"'«“*]{0,3}[ \u00a0]?"
_CALLED = re.compile(
    rf"(?<![^\W_]){_LINE}\b\.?(?:[ \u00a0]?\([^()\d\n]{{1,20}}\))?"
    r"(?:[ \u00a0_](?:number|num[eé]\u0301?ro|num|no|n°|is|was|est|on|at|au|c['’]est|le)){0,3}"
    rf"{_IS}(?P<number>{_DIGITS})(?![\w]|[.,/-][0-9])",
    re.I,
)
# What is your phone number? – the answer opens the next line.
_ASKED = re.compile(
    rf"(?<![^\W_])(?:{_LINE}\b|(?:your|best|votre|ton|bon|my|good)[ ](?:contact[ ])?(?:number|num[ée]ro|num)\b)"
    r"[^\n?\d]{0,40}\?"
    r"(?:[ \t\r]*\n){1,2}(?:[^\n\d]{0,40}?[:>\]–—-][ \u00a0])?[ \t]*"
    r"(?:(?:alors|c['’]est|euh|is|it['’]?s|le|my|number|ok|oui|sure|yeah|yes)[ ,.!]{1,2}){0,4}"
    rf"(?P<number>{_DIGITS})(?![\w]|[.,/-][0-9])",
    re.I,
)
# A number may be one of anything: only what is somebody's, or what nothing is said of.
_NUMBER = re.compile(
    r"(?:(?P<whose>\b(?:my|his|her|our|their|your|new|work|home|contact|emergency|mon|son|ton|notre|leur|votre"
    r"|nouveau|bon)[ \u00a0])"
    r"|(?:^|(?<=[.,;:!?(\n–—-])|(?<=[.,;:!?(\n–—-][ ])|\b(?:the|this|au|le|ce|un|a)[ \u00a0]))"
    rf"(?:number|num[eé]\u0301?ro|num|n[°º]|no\.)(?:[ \u00a0](?:is|was|est|c['’]est|le)){{0,2}}{_IS}"
    rf"(?P<number>{_DIGITS})(?![\w]|[.,/-][0-9])",
    re.I,
)
# Verbs say less: up to three words between, and the number in groups.
_TO_CALL = re.compile(
    r"(?<![^\W_])(?:call|ring|dial|text|reach(?:able)?|phone|(?:r?appel)(?:ez|er|le|l?es)|compos(?:ez|er|e)|contact(?:ez|er|e)"
    r"|join(?:dre|gnable|gnez|t))(?P<between>(?: [\w’'-]{1,15}){0,4})[ \u00a0]"
    rf"(?P<number>\(?[0-9]{{2,5}}\)?(?:[{_SIGNS}][0-9]{{2,5}}){{2,4}})(?![\w]|[.,/-][0-9])",
    re.I,
)
_LINK = re.compile(r"(?:wa\.me/|[?&]phone=)(?P<number>[1-9][0-9]{8,13})(?![\w])")
_COLUMN = re.compile(rf"(?:[^\W\d_]{{1,15}}[ _-])?(?:{_LINE}|phone)\.?(?:[ _-](?:[^\W\d_]{{1,15}}|n°))?", re.I)
_REFERENCE = re.compile(
    r"\b(?:(?:isbn|issn|ean|réf\w*|ref|reference|id|siren|siret|facture|invoice|commande|order)"
    r"|(?:account|booking|case|client|colis|compte|contrat|customer|dossier|policy|r[ée]servation|serial|suivi|ticket|tracking)"
    r"(?=[ ](?:n|ref|r[ée]f|id)))(?:[ ](?:number|no\b|num[ée]ro|n[°º]))?\W{0,4}$",
    re.I,
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
_FEWEST_AT_HOME = 9
_FEWEST_WITH_CODE = 10


def phones(text: str) -> Iterator[Match]:
    """Valid numbers only (Google's libphonenumber knows every numbering plan)."""
    yield from _international(text)
    yield from _grouped(text)
    for match in _TEN_DIGITS.finditer(text):
        reference = match[0] == "0123456789" or _REFERENCE.search(text[max(0, match.start() - 30) : match.start()])
        if not reference and any(_national(match[0], country) for country in _FRANCE):
            yield Match("phone", match.start(), match.end(), match[0])
    for match in _AMERICAN.finditer(text):
        if _national(match[0], "US"):
            yield Match("phone", match.start(), match.end(), match[0])
    for match in _SPACED_AMERICAN.finditer(text):
        before = text[max(0, match.start() - 30) : match.start()]
        if not _REFERENCE.search(before) and _national(match[0], "US"):
            yield Match("phone", match.start(), match.end(), match[0])
    for match in _BRITISH_MOBILE.finditer(text):
        if not _REFERENCE.search(text[max(0, match.start() - 30) : match.start()]) and _national(match[0], "GB"):
            yield Match("phone", match.start(), match.end(), match[0])
    yield from _called(text)
    for start, value in values(text, _COLUMN):
        if _anywhere(value):
            yield Match("phone", start, start + len(value), value)


def _called(text: str) -> Iterator[Match]:
    """Numbers of more countries, after a noun or a verb of telephoning."""
    for match in (*_CALLED.finditer(text), *_ASKED.finditer(text)):
        if _anywhere(match["number"]):
            yield Match("phone", *match.span("number"), match["number"])
    for match in _NUMBER.finditer(text):
        dialled = match["number"].lstrip("(").startswith("0")
        if (dialled or match["whose"]) and _anywhere(match["number"]):
            yield Match("phone", *match.span("number"), match["number"])
    for match in _LINK.finditer(text):
        if _national("+" + match["number"]):
            yield Match("phone", *match.span("number"), match["number"])
    for match in _TO_CALL.finditer(text):
        with_zero = match["number"].lstrip("(").startswith("0")
        countries = _DIALLED_WITH_ZERO if with_zero else _DIALLED_WITHOUT
        reference = _REFERENCE.search(match["between"])
        enough = sum(c.isdigit() for c in match["number"]) >= _FEWEST_AT_HOME
        if enough and not reference and any(_national(match["number"], country) for country in countries):
            yield Match("phone", *match.span("number"), match["number"])


def _anywhere(number: str) -> bool:
    """A number of one of the countries, or one that begins with the code of its country without a plus sign."""
    digits = re.sub(r"[^0-9]", "", number)
    if len(digits) < _FEWEST_AT_HOME or re.search(r"[^0-9()+ \t\u00a0\u202f\u2009./·\u2010\u2011\u2013-]", number):
        return False
    home = any(_national(number, country) for country in _CALLED_COUNTRIES)
    return home or (len(digits) > _FEWEST_WITH_CODE and digits[0] != "0" and bool(_national("+" + digits)))


def _international(text: str) -> Iterator[Match]:
    """The longest valid number from each start: `+33 6 12 34 56 78 2024` is a number and a year."""
    for match in _INTERNATIONAL.finditer(text):
        for candidate in _shorter_and_shorter(match[1]):
            digits = re.sub(r"[^0-9]", "", candidate)
            digits = digits if candidate.startswith(("+", "(+")) else re.sub(r"^(?:00|011)", "", digits)
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
    if len(gaps) > 1 and gaps[0] == "/":  # 0470/12.34.56
        gaps = gaps[1:]
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
        parsed = phonenumbers.parse(number.replace("·", " "), country)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_valid_number(parsed) and not _FICTION.fullmatch(
        phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    ):
        return ""
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
