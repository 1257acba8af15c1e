"""Passwords: values that a text or a command itself gives as one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from plume.redact.chosen import (
    has_letters,
    is_joined_words,
    is_no_standard,
    is_phrase,
    looks_chosen,
    looks_like_nothing_else,
    looks_mixed,
    looks_said,
    looks_shared,
)
from plume.redact.codes import codes
from plume.redact.columns import values
from plume.redact.commands import Candidate, commands
from plume.redact.match import Match
from plume.redact.words import word_passwords

SPACES = r"[ \t\u00a0\u202f]{0,24}"
IS = (
    rf"(?:\\?[\"'”»*`]){{0,3}}{SPACES}(?:(?:=>|:=|->|→|[:=]|%3D)|[.…_]{{3,60}}[ ]?:?)[*]{{0,2}}{SPACES}[*]{{0,2}}"
    r"(?:\\?[\"'«“`])?[ \u00a0\u202f]?"
)
_ADVERB = r"(?:[ ](?:now|currently|still|just|simply|maintenant|désormais|toujours|bien|actuellement))?"
_SPOKEN = (
    r"(?:,?[ ](?:\(?which[ ]is|qui[ ]est|is|was|will[ ]be|should[ ]be|would[ ](?:be|have[ ]been)|becomes"
    r"|remains|(?:it|that)(?:['’]s|[ ]is)"
    r"|est|était|sera|serait|devient|reste|ce[ ]sera|c(?:['’]?|[ ])(?:est|était))|['’]s)"
    rf"{_ADVERB}(?:[ ](?:set[ ]to|this|celui-ci|donc))?[ ]?[ :][\"'«“`]?[ \u00a0\u202f]?"
)
_NOUN = re.compile(
    r"(?:(?<![^\W_])(?:pass(?:wor[dt]|wd|wrd|phrase|code)|contrase[ñn]a|kennwort|senha|wachtwoord"
    r"|pwd?(?!=[/~])|ps?wd|pword|mdp|mots?[ _-]?de[ _-]?passe?"
    r"|phrase[ _](?:secr[eè]\u0300?te|de[ _]passe)|(?:wi-?fi|wlan|wpa[23]?|network)[ _](?:security[ ])?(?:key"
    r"|code|pass)(?![^\W_])"
    r"|(?:wpa[_-])?psk|(?:cl(?:[eé]\u0301?|ef)|code)[ ](?:(?:du|de|pour[ ]le)[ ])?(?:wi-?fi|wpa[23]?|wep"
    r"|(?:la[ ]|live|free|b)box))"
    r"|(?-i:(?<=[a-z])Pass(?:word|wd)|(?<=[A-Z])PASS(?:WORD|WD)))",  # dbPassword, PGPASSWORD
    re.I,
)
_WORDS = r"(?: (?![0-9])[\w’'-]{1,15})"
_VALUE = r"(?P<value>[^\s\"'”»,;<>{}()\[\]`|]{6,64}+)(?![(\[{<])"

# What stands after the noun.
_ASSIGNED = re.compile(rf"{_WORDS}{{0,7}}(?: \([^()\n]{{1,30}}\))?{IS}{_VALUE}", re.I)
_SAID = re.compile(rf"{_WORDS}{{0,7}}{_SPOKEN}{_VALUE}", re.I)
_QUOTED = re.compile(rf"[ ](?P<quote>['\"«“`])[ \u00a0\u202f]?{_VALUE}")
_MARKUP = re.compile(  # <password>…</password>, key="password" value="…"
    r"(?:(?P<tag>[\"']?>)|[\"'][ ]{1,3}(?:value|content)=[\"'])(?P<value>[^\s\"'<>]{6,64})(?(tag)(?=</)|(?=[\"']))"
)
_DASHED = re.compile(rf"{_WORDS}{{0,4}}[ ][–—-]{{1,2}}[ ][\"'“«`]?{_VALUE}")  # Temporary password - …
_IT_IS = (
    rf"[^\n\"“«]{{0,90}}?[ ](?:it['’]?s|it[ ]is|that['’]s|c['’]?est"
    rf"|(?:the|l['’]|le|mon|my)[ ]?(?:ancien|new|nouveau|old)(?:[ ]one)?[ ](?:est|était|is|was)){_ADVERB}[ ]"
)
_SAYS = re.compile(r"[ ](?:it|that|c|was|est|is|était)\b", re.I)
_LATER = re.compile(rf"{_IT_IS}{_VALUE}", re.I)  # my password, so I wrote it down, it's …
_LATER_QUOTED = re.compile(rf"{_IT_IS}[\"“«'`][ \u00a0]?{_VALUE}", re.I)
_SECOND = re.compile(  # old password: …, new: …
    rf"{_WORDS}{{0,4}}{IS}[^\s\"'”»,;]{{6,64}}[\"'”»]?[ ]?[,;/|–—-]?[ ](?:(?:et|and|le|the|my)[ ]){{0,2}}"
    rf"(?:nouveau|new|ancien|old|temp|temporary|provisoire)(?:[ ]one)?{IS}{_VALUE}",
    re.I,
)
_STATE = r"(?:[ ](?:actuel|current|initial|new|nouveau|old|provisoire|temporaire|temporary))?"
_BESIDE = re.compile(rf"(?:[ ]wi-?fi)?{_STATE}[ ]?[ (\[]{_VALUE}", re.I)  # login … password …, my password (…)
_IN_CELL = re.compile(rf"[ \t*]{{0,24}}\|[ \t*`]{{0,24}}{_VALUE}[ \t*`]{{0,24}}\|")
_BELOW = re.compile(rf"{_WORDS}{{0,4}}[ ]?:[*]{{0,2}}[ \t\r]{{0,4}}\n[ \t>*`-]{{0,8}}{_VALUE}(?=[ \t\r`*]*(?:\n|\Z))")
_ANSWERED = re.compile(
    rf"[^.;:!?\d\n]{{0,40}}[ \u00a0]?\?(?:[ \t\r]*\n){{1,2}}(?:[^\n]{{0,40}}?[:>\])–—-][ \u00a0])?[ \t]*"
    rf"(?:(?:oui|yes|ok|sure|alors|euh|so)[ ,]{{1,2}})?(?:c['’]est[ ]|it['’]?s[ ]|it[ ]is[ ])?"
    rf"(?:[^\s,;:/|]{{2,40}}(?:[ ]?[,;:/|–—-][ ]|[ ]?/|[ ](?:et|and|puis|then)[ ]))?[\"'«“`]?{_VALUE}",
    re.I,
)
_OF_SETTING = r"(?:to|into|en|à|par|pour)"
_TO = re.compile(rf"(?:[ ]from[ ]\S{{1,40}}|{_WORDS}{{1,4}})?[ ]{_OF_SETTING}[ ][\"'“«]?[ \u00a0]?{_VALUE}", re.I)
_FROM = re.compile(rf"[ ]from[ ][\"'“«]?{_VALUE}", re.I)
_SETTING = re.compile(
    r"\b(?:set|reset|chang(?:e[drz]?|ing|é)|updat(?:e|ed|ing)|modifié?|remplac(?:é|er|ez)|mets|mis|met(?:tez|tre)"
    rf"|définir?|réinitialisé?){_WORDS}{{0,4}}[ ]$",
    re.I,
)
_CHANGED = re.compile(
    r"[ ](?:was[ ]|is[ ]|now[ ]|has[ ]been[ ]|a[ ]été[ ]){0,2}"
    r"(?:changed|updated|reset|set|modifié|changé|remplacé|réinitialisé)(?=[ ])",
    re.I,
)
_ASSIGNED_WORDS = re.compile(rf"{IS}{_VALUE}")
_SAID_OF = rf"{_WORDS}{{0,7}}(?:{IS}|{_SPOKEN})"
_PHRASE = re.compile(
    rf"{_SAID_OF}(?:(?<=[\"“«])|(?<=[\"“«][ \u00a0\u202f]))(?P<value>[^\"”»“«\n]{{8,120}}[^\"”»\s])", re.I
)

_QUOTE = re.compile(r"[\"“«]")

# What stands before it: with password …; Xk9fr22b as the password.
_GIVING = re.compile(
    r"(?:\b(?:with|using|via|avec|guest|default|temp(?:orary)?|wi-?fi|avec[ ]le|the|mon|le)|[,;/|–—]|(?:^"
    r"|\n)[ \t>*-]{0,6})[ ]?$",
    re.I,
)
_AS = re.compile(
    rf"[\"'«“(`]?{_VALUE}[\"'»”`]?[ ](?:as|comme|en|for|is|was|est|était)"
    r"[ ](?:(?:my|the|a|his|her|our|their|your|mon|le|son|ton|notre|votre|leur|un)[ ])?(?:[\w-]{1,15}[ ])?",
    re.I,
)
_LIKENED = re.compile(r" (?:as|comme) ", re.I)
_KIND_OF = re.compile(r"[ -](?:manager|reset|policy|field|hash|generator|length|protection|vault)", re.I)
_WORD = re.compile(r"\S+")
_SHORT_NOUNS = frozenset(["mdp", "pw", "pwd", "pswd", "passcode", "psk"])  # words for nothing else

# Without a noun. `pass` alone is also a ticket and a verb: only as the name of a field, or openssl's `pass:…`.
_FIELD = re.compile(
    rf"(?:(?:^|(?<=[_\"'{{,;/|&?]))[ \t>*-]{{0,4}}pass{IS}|(?-i:(?<=[a-z])Pass){IS}|(?<=\s)pass:){_VALUE}", re.I | re.M
)
_PAIR = re.compile(  # identifiants : marie / Xk9fr22b
    r"(?<![^\W_])(?:identifiants?|credentials?|creds|log-?ins?|wi-?fi|ssid|acc[eè]s"
    r"|connexion)(?:[ ]?[ /&+][ ]?[\w’'-]{1,15}){0,5}"
    rf"{IS}[^\s\"'”»,;:/|0-9][^\s\"'”»,;:/|]{{1,40}}[ ]?[/:|,][ ]?{_VALUE}",
    re.I,
)
_NETWORK = r"(?:wi-?fi|ssid|hotspot|livebox|freebox|bbox|r[ée]seau[ ]?:|network(?:[ ]name)?[ ]?:)"
_WIFI = re.compile(
    rf"(?<![^\W_]){_NETWORK}[^\n]{{0,60}}?(?:\n[^\n]{{0,60}}?){{0,2}}(?<![^\W_])(?:cl(?:[eé]\u0301?|ef)|key|code|pass)"
    rf"(?:[ ](?:wpa[23]?|wep|de[ ]s[ée]curit[ée]))?(?:{IS}|{_SPOKEN}|[ ]){_VALUE}",
    re.I,
)
_FOR_WIFI = re.compile(
    rf"(?<![^\W_])(?:cl(?:[eé]\u0301?|ef)|key|code)(?:{IS}|{_SPOKEN}){_VALUE}[\"'”»]?[ ]"
    r"(?:[\w’'-]{1,15}[ ]){1,3}(?:wi-?fi|hotspot|r[ée]seau|network|(?:live|free|b)box)\b",
    re.I,
)
_USER_AND = re.compile(  # user bob, pass …
    r"(?<![^\W_])(?:user(?:[ ]?name)?|login|identifiant|utilisateur|compte|account)(?:[ ]?[:=][ ]?|[ ])"
    r"[^\s,;]{2,60}[ ]?[,;/|&+–—-]?[ ]"
    rf"(?:et[ ]|and[ ]|with[ ])?(?:pass|pwd?|mdp|password|passwd|mot[ ]de[ ]passe)(?:{IS}|[ ]){_VALUE}",
    re.I,
)
_SIGNED_IN = re.compile(  # log in as bob with …
    r"\b(?:(?:log(?:ged)?|sign(?:ed)?)[ -]?(?:in|on)|connect(?:ed|ez|er|é|e)?(?:-toi|-vous)?)"
    r"(?:[ ](?:to|[àa])[ ][\w.-]{1,40})?"
    r"[ ](?:as|comme|en[ ]tant[ ]que)[ ][^\s,;]{2,40}[ ](?:with|using|and|avec|et|/)[ ]" + _VALUE,
    re.I,
)
_COLUMN = re.compile(
    r"(?:[^\W\d_]{1,15}[ _-])?(?:pass(?:word|wd|code)?|pwd|mdp|mot[ _]de[ _]passe|pin)(?:[ _][^\W\d_]{1,15})?", re.I
)

_NEXT_PARAMETER = re.compile(r"&\w{1,40}=")
_CLOSING = ('"', "'", "”", "»", "`")
_CLOSING_FRENCH = (" »", "\u00a0»", "\u202f»")
_GOES_ON = re.compile(r" (?:[(–—&-]|(?-i:[a-zà-ÿ]))")
_ENDS_LINE = re.compile(r"[ \t\r]*(?:\n|\Z)")


def passwords(text: str) -> Iterator[Match]:
    """The value of `password = …`, `le mot de passe est …`, `IDENTIFIED BY '…'` or `mysql -p…` when it looks like one,
    not like a word or a program; without a sign between, only when it can hardly be anything else."""
    folded = text.lower()
    for match, is_one in _candidates(text, folded):
        value, end = _NEXT_PARAMETER.split(match["value"], 1)[0].rstrip("\\"), match.end("value")  # \"…\"
        if text[end : end + 1] not in _CLOSING and text[end : end + 2] not in _CLOSING_FRENCH:
            value = _without_stop(value, text, end, spoken=match.re is _SAID)
        if is_one(value):
            start = match.start("value")
            yield Match("password", start, start + len(value), value)
    for start, value in [*codes(text, folded), *word_passwords(text, folded), *_in_columns(text, folded)]:
        yield Match("password", start, start + len(value), value)


def _candidates(text: str, folded: str) -> Iterator[Candidate]:
    for signs, pattern, is_one in _WITHOUT_NOUN:
        if any(sign in folded for sign in signs):
            for match in pattern.finditer(text):
                yield match, is_one
    nouns = _NOUN.finditer(text) if any(sign in folded for sign in _NOUN_SIGNS) else ()
    for noun in nouns:
        yield from _after(text, noun)
        before = text[max(0, noun.start() - 90) : noun.start()]
        if not _KIND_OF.match(text, noun.end()):
            yield from _given_as(text, noun.start())
        changed = _CHANGED.match(text, noun.end())
        if changed or _SETTING.search(before):
            for pattern in (_FROM, _TO):
                if given := pattern.match(text, changed.end() if changed else noun.end()):
                    yield given, looks_like_nothing_else
        short = noun[0].lower() in _SHORT_NOUNS or "wi" in noun[0].lower()
        if (short or _GIVING.search(before)) and (beside := _BESIDE.match(text, noun.end())):
            yield beside, looks_mixed
    yield from commands(text, folded)


def _given_as(text: str, at: int) -> Iterator[Candidate]:
    """`Xk9fr22b as the new ` before a noun: two words back, up to four."""
    starts = [word.start() for word in _WORD.finditer(text, max(0, at - 110), at)]
    for start in starts[-4:-1]:
        if match := _AS.fullmatch(text, start, at):
            yield match, (looks_mixed if _LIKENED.search(match[0]) else looks_like_nothing_else)


def _after(text: str, noun: re.Match[str]) -> Iterator[Candidate]:
    for pattern, is_one in _AFTER_NOUN:
        if match := pattern.match(text, noun.end()):
            yield match, is_one
    if _SAYS.search(text, noun.end(), noun.end() + 110):
        for pattern, is_one in ((_LATER, looks_like_nothing_else), (_LATER_QUOTED, has_letters)):
            if match := pattern.match(text, noun.end()):
                yield match, is_one
    if _QUOTE.search(text, noun.end(), noun.end() + 90) and (match := _PHRASE.match(text, noun.end())):
        yield match, is_phrase
    if "phrase" in noun[0].lower() and (match := _ASSIGNED_WORDS.match(text, noun.end())):
        yield match, is_joined_words


def _in_columns(text: str, folded: str) -> Iterator[tuple[int, str]]:
    if any(sign in folded for sign in ("pass", "pwd", "mdp", "pin")):
        for start, value in values(text, _COLUMN):
            if looks_chosen(value) and not re.search(r"\s", value):
                yield start, value


def _without_stop(value: str, text: str, end: int, spoken: bool) -> str:
    """`Xk9!fr22.` ends a sentence; the sign in `Xk9fr22! mais` does not, as the sentence goes on."""
    kept = value.rstrip(".:!?…*")
    own = _GOES_ON.match(text, end) or (not spoken and _ENDS_LINE.match(text, end))
    return value if value == kept + "!" and own else kept


_AFTER_NOUN = (
    (_ASSIGNED, looks_chosen),
    (_SAID, looks_said),
    (_QUOTED, looks_chosen),
    (_BESIDE, looks_like_nothing_else),
    (_IN_CELL, looks_chosen),
    (_MARKUP, looks_chosen),
    (_BELOW, looks_mixed),
    (_DASHED, is_no_standard),
    (_SECOND, looks_mixed),
    (_ANSWERED, looks_mixed),
)
# A text without any of these is passed over quickly.
_NOUN_SIGNS = (
    *("passw", "passc", "phrase", "pw", "psw", "psk", "mdp", "de passe", "de_passe", "de-pass", "de pass", "depasse"),
    *("contrase", "kennwort", "senha", "wachtwoord"),
    *("wifi", "wi-fi", "wpa", "wep", "wlan", "network", "box"),
)
_WITHOUT_NOUN = (
    (
        (
            "identifiant",
            "credential",
            "creds",
            "login",
            "log-in",
            "accès",
            "acces",
            "accès",
            "connexion",
            "wifi",
            "wi-fi",
            "ssid",
        ),
        _PAIR,
        looks_mixed,
    ),
    (("pass:", "pass=", "pass ", 'pass"', "pass'", "pass*", "pass`", "pass\t", "pass."), _FIELD, has_letters),
    (("wifi", "wi-fi", "ssid", "hotspot", "box", "réseau", "reseau", "network"), _WIFI, looks_shared),
    (("wifi", "wi-fi", "réseau", "reseau", "network"), _FOR_WIFI, looks_shared),
    (("user", "login", "identifiant", "utilisateur", "compte", "account"), _USER_AND, looks_mixed),
    ((" as ", " comme ", " tant que "), _SIGNED_IN, looks_like_nothing_else),
)


def may_hold_password(text: str) -> bool:
    """Whether a password is in a text; quick where nothing speaks of one."""
    return next(passwords(text), None) is not None
