"""Addresses of mail written to be read by people only: `marie (at) phare.fr`, `marie arobase phare point fr`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from plume.redact.hosts import length_of_host

_L = r"\w\u0300-\u036f"  # letters, also those whose accent is a character of its own
_BRACKETED = r"[(\[{<][ ]?(?:at|chez|arobase?|@)[ ]?[)\]}>]"
_BRACKETED_POINT = r"[(\[{<][ ]?(?:dot|point|\.)[ ]?[)\]}>]"
_SIGN = re.compile(
    rf"[ ]?(?P<sure>{_BRACKETED})[ ]?|[ ](?P<word>arobase?|-at-)[ ]|(?P<code>&#0?64;|&commat;)"
    r"|[ ](?P<likely>at|chez|@)[ ]|(?P<torn>[ ]@|(?<=\w)@[ ])(?=[a-z])|[ ]?(?P<letter>\(a\))[ ]?",
    re.I,
)
_LOCAL = re.compile(
    rf"(?<![{_L}.+%-])"
    rf"(?:[{_L}-]{{1,30}}(?:[ ](?:dot|point|underscore|tiret|dash)[ ]|[ ]?{_BRACKETED_POINT}[ ]?)){{0,3}}"
    rf"[{_L}.+%-]{{1,64}}$",
    re.I,
)
_POINT = rf"(?:[ ]?{_BRACKETED_POINT}[ ]?|[ ](?:dot|point)[ ])"
_LABEL = r"[^\W_][\w-]{0,61}"
_HOST = re.compile(rf"(?:{_LABEL}(?P<point>\.|{_POINT})){{1,6}}(?P<top>[^\W\d_]{{2,24}})(?!\w)", re.I)
_SPOKEN_POINT = re.compile(_POINT, re.I)
# A bare `at` is a word of every day: an address then has a provider's name, signs of one, or the text speaks of mail.
_PROVIDER = re.compile(
    r"(?:aol|bbox|free|gmail|gmx|googlemail|hotmail|icloud|laposte|live|msn|neuf|numericable|orange|outlook|proton(?:mail)?|sfr"
    r"|wanadoo|yahoo|ymail|zoho)\b",
    re.I,
)
_OF_MAIL = re.compile(
    r"(?:mail|courriel|adresse|address|write|[ée]cri(?:re|vez|s)|contact|reach|joindre|username)\b", re.I
)
_TOP = re.compile(r"(?:com|net|org|edu|gov|info|biz|example|io|dev|app|me|eu|[a-z]{2})", re.I)
_NO_LOCAL = re.compile(
    r"(?:am|are|arrived?|be|buy|est|habite|here|is|it|live|look(?:ed)?|me|meet|people|person|shop|someone|suis|there|travaille"
    r"|us|was|were|works?|worked)",
    re.I,
)
_NO_HOST = re.compile(r"(?:a|an|ce|cet|cette|la|le|les|my|that|the|this|un|une)\b", re.I)
_FURTHEST = 160  # characters of an address before its sign


def may_hold_spelt(text: str) -> bool:
    """Whether there is a sign of such an address; quick."""
    folded = text.lower()
    return any(sign in folded for sign in _TELLING) and _SIGN.search(text) is not None


def spelt_emails(text: str) -> Iterator[tuple[int, int]]:
    """Where each begins and ends."""
    if not may_hold_spelt(text):
        return
    for sign in _SIGN.finditer(text):
        host = _HOST.match(text, sign.end())
        if not host:
            continue
        local = _LOCAL.search(text, max(0, sign.start() - _FURTHEST), sign.start())
        if local and (not (sign["likely"] or sign["letter"] or sign["torn"]) or _is_likely(text, local, sign, host)):
            yield local.start(), host.start() + length_of_host(host[0])


def _is_likely(text: str, local: re.Match[str], sign: re.Match[str], host: re.Match[str]) -> bool:
    """After a bare `at`: with a spoken point, and something else that speaks for it."""
    top = host["top"]
    if (
        not _TOP.fullmatch(top)
        or top not in (top.lower(), top.upper())
        or _NO_LOCAL.fullmatch(local[0])
        or _NO_HOST.match(host[0])
    ):
        return False
    provider = _PROVIDER.match(host[0])
    if sign["torn"]:  # jean.dupont@ gmail.com
        return bool(provider)
    if (sign["likely"] or "@") != "@" and not _SPOKEN_POINT.search(host[0]) and not (provider and "." in local[0]):
        return False
    if sign["likely"] == "chez" and not provider:
        return False
    before = text[max(0, local.start() - 40) : local.start()]
    composed = re.search(r"[\w][._+-][\w]|[a-z][0-9]|[ ]", local[0])
    return bool(composed or provider or _OF_MAIL.search(before))


_TELLING = ("(", "[", "{", "<", " arob", " -at- ", "&#", "&commat;", " at ", " chez ", " @", "@ ")
