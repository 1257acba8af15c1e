"""Codes of figures that open a telephone, a card or a door: PIN, passcode, digicode."""

from __future__ import annotations

import re
from collections.abc import Iterator

_THING = (
    r"(?:porte|portail|portillon|alarme|coffre|immeuble|entr[ée]e|acc[eè]s|cadenas|garage|d[ée]verrouillage|t[ée]l[ée]phone"
    r"|bo[iî]te[ ][àa][ ]cl[ée]s|casier|interphone|ordi(?:nateur)?|portable|tablette|v[ée]lo)"
)
_CODE = (
    r"digicode[ ](?:de[ ]l['’]|de[ ]la[ ]|du[ ]|d['’])[^\W\d_]{3,15}|code[ ](?:parental|carte[ ]bleue|cb)"
    r"|code[ ](?:de[ ](?:ma|ta|sa|la|notre|votre|leur)[ ]|de[ ])?(?:carte[ ](?:bleue|bancaire|sim)|cb)"
    r"|code[ ]de[ ](?:ma|ta|sa|notre|votre|leur)[ ]carte"
    r"|lockbox|key[ ]?box|key[ ]safe|pin[ _](?:code|number)|num[ée]ro[ ]pin|pin|puk|pass[ ]?code|digicode"
    r"|code[ ](?:secret|pin|puk|confidentiel)"
    r"|(?:door|gate|access|alarm|entry|unlock|safe|lock|lockbox|key[ ]?box"
    r"|key[ ]safe|locker|bike|i(?:pad|phone)|tablet|laptop|interphone|padlock|garage"
    r"|voicemail|burglar[ ]alarm)[ ]code"
    rf"|code[ ](?:(?:de[ ]l['’]|de[ ]la[ ]|d['’]|du[ ]|de[ ]))?{_THING}(?:[ ]{_THING})?"
    rf"|(?:{_THING}|interphone|alarm|lockbox|safe|gate|door)[ ]?[:,–—-][ ]code"
    rf"|(?:portail|portillon)(?=[ ]?:(?![ ]?20[0-9]{{2}}\b))"
)
# Words that say the figures are something else.
_OTHER = (
    r"(?:after|avant|before|commande|depuis|digits?|ending|ends|envoy\w*|expir\w*|finissant|in|number|num[ée]ro|on|order|page"
    r"|re[cç]u\w*|room|sent|since|step|termin\w*|until|version)"
)
_WORDS = rf"(?:,?[ ](?!{_OTHER}\b)[^\W\d_][\w’'-]{{0,14}})"
_IS = (
    r"(?:[ ](?:(?:has[ ]been|was|is|a[ ]été|est|sera)[ ](?:changed|reset|set|updated|changée?|modifiée?|mis)[ ]"
    r"(?:to|en|par|pour|à)|is|was|will[ ]be|est|était|sera|c(?:['’]?|[ ])est)(?:[ ](?:now|maintenant|désormais|toujours"
    r"|still|le|the))?[ ]"
    r"|['’]s[ ]|[\"'*]{0,2}[ \t\u00a0]{0,8}(?:[:=→]|->|[.…]{3,60})[*]{0,2}[ \t\u00a0]{0,8}|,[ ]"
    r"|[ \u00a0]?\?[ ]{0,2}\n[^\n\d]{0,30})"
)
_FIGURES = r"(?P<value>[0-9]{4,8}[A-F*#]?|[A-Z][0-9]{4,5}[A-Z]?|[0-9]{2,4}[A-F][0-9]{0,4}(?<=[0-9A-F]{4}))"
_GIVEN = re.compile(
    rf"(?<![^\W_])(?:{_CODE})\b(?:{_WORDS}{{0,10}}{_IS}|[ ]\(?|_?[ ]?=[ ]?)[\"'«“]?{_FIGURES}"
    r"(?![\w]|[.,:/-][0-9]|[ ]?[€$£%]|[ ][0-9])",
    re.I,
)
_BUS = re.compile(r"\b(?:gpio|header|connector|board|arduino|chip)\b[^\n]{0,30}$", re.I)
_KNOWN = frozenset(["1234", "12345", "123456", "12345678"])  # everybody's, as `password` is
_SIGNS = ("pin", "puk", "code", "lockbox", "key box", "keybox", "key safe", "portail", "portillon")


def codes(text: str, folded: str) -> Iterator[tuple[int, str]]:
    """Where each begins, and the code: `the PIN for his phone is 7319`, `digicode 48B12`."""
    if not any(sign in folded for sign in _SIGNS):
        return
    for match in _GIVEN.finditer(text):
        value = match["value"]
        if value in _KNOWN or len(set(value)) < 2 or _BUS.search(text[max(0, match.start() - 40) : match.start()]):
            continue
        yield match.start("value"), value
