"""Passwords: values that a text or a command itself gives as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from plume.redact.match import Match

SPACES = r"[ \t\u00a0\u202f]{0,3}"
IS = rf"[\"'”»*`]{{0,3}}{SPACES}(?:=>|:=|[:=])[*]{{0,2}}{SPACES}[*]{{0,2}}[\"'«“`]?[ \u00a0\u202f]?"
_SPOKEN = (
    r"[ ](?:is|was|will[ ]be|est|était|sera|c['’](?:est|était))(?:[ ](?:now|currently|maintenant|désormais))?"
    r"[ ][\"'«“`]?[ \u00a0\u202f]?"
)
_NOUN = re.compile(
    r"(?:(?<![^\W_])(?:pass(?:word|wd|phrase|code)|pwd?(?!=[/~])|mdp|mots?[ _]?de[ _]?passe"
    r"|phrase[ _](?:secr[eè]\u0300?te|de[ _]passe)|wi-?fi[ ](?:key|code)"
    r"|(?:cl(?:[eé]\u0301?|ef)|code)[ ](?:(?:du|de|pour[ ]le)[ ])?wi-?fi)"
    r"|(?-i:(?<=[a-z])Pass(?:word|wd)|(?<=[A-Z])PASS(?:WORD|WD)))",  # dbPassword, PGPASSWORD
    re.I,
)
_WORDS = r"(?: (?![0-9])[\w’'-]{1,15})"
_VALUE = r"(?P<value>[^\s\"'”»,;<>{}()\[\]`|]{6,64}+)(?![(\[{<])"

# What stands after the noun.
_ASSIGNED = re.compile(rf"{_WORDS}{{0,5}}{IS}{_VALUE}", re.I)
_SAID = re.compile(rf"{_WORDS}{{0,5}}{_SPOKEN}{_VALUE}", re.I)
_QUOTED = re.compile(rf"[ ](?P<quote>['\"]){_VALUE}(?P=quote)")
_BESIDE = re.compile(rf"[ ]?[ (]{_VALUE}")  # login … password …, my password (…)
_TO = re.compile(rf"[ ]to[ ][\"'“]?{_VALUE}", re.I)
_SETTING = re.compile(rf"\b(?:set|reset|chang(?:e|ed|ing)|updat(?:e|ed|ing)){_WORDS}{{0,4}}[ ]$", re.I)
_ASSIGNED_WORDS = re.compile(rf"{IS}{_VALUE}")

# Without a noun. `pass` alone is also a ticket and a verb: only as the name of a field, or openssl's `pass:…`.
_FIELD = re.compile(rf"(?:(?:^|(?<=[_\"'{{,;/|&?]))[ \t>*-]{{0,4}}pass{IS}|(?<=\s)pass:){_VALUE}", re.I | re.M)
_SQL = re.compile(rf"\bidentified[ ]by[ ](?P<quote>['\"]){_VALUE}(?P=quote)", re.I)
# The options of programs that take a password as a word of the command: `mysql -p…`, `docker login -p …`.
_OPTION = re.compile(
    r"\b(?:(?:mysql|mariadb)[\w-]{0,10}\b[^\n|;]{0,100}?[ ]-p"
    r"|(?:docker|podman|helm|skopeo|oras)[ ](?:registry[ ])?login\b[^\n|;]{0,100}?[ ](?:-p|--password)[ ]"
    r"|sshpass[ ]-p[ ]?|redis-cli\b[^\n|;]{0,100}?[ ](?:-a|--pass)[ ])"
    rf"['\"]?{_VALUE}"
)

_CLOSING = ('"', "'", "”", "»", "`")
_GOES_ON = re.compile(r" (?:[(–—&-]|(?-i:[a-zà-ÿ]))")
_FEWEST_SIGNS = 4  # different ones
_COUNT = re.compile(r"[0-9]{1,3}-?(?:bit|car|char|chiffre|day|digit|h|jour|letter|lettre|min|mois|month|sign)", re.I)
_JOINED_WORDS = re.compile(r"[^\W\d_]{3,}(?:[._-][^\W\d_]{3,}){2,}")
_INNER_DIGIT = re.compile(r"[^\W\d_][0-9]+[^\W\d_]")
# What people write in place of a secret, and what programs write: `your-key`, `${PASSWORD}`, `****`, `os.environ`.
_DUMMY = re.compile(
    r"example|exemple|xxxx|\.\.\.|…|\*\*\*|your|votre|placeholder|dummy|change[_-]?me|redacted|insert|my[_-]?(?:pass|secret|api)"
    r"|[<>{}]|\$[({]|^\$|%s|://|^//|^(?:user|admin|pass|pwd|mdp|secret|env|process|config|settings|args|self|os)\b"
    r"|^(?:aes|argon|base|bcrypt|int|md|scrypt|sha|uint|utf)[_-]?[0-9]{1,3}\b",
    re.I,
)
_WORD_FOR_ONE = re.compile(r"bar|foo|key|mdp|motdepasse|none|null|pass(?:w(?:or)?d)?|pw|pwd|secret|test|token", re.I)


def passwords(text: str) -> Iterator[Match]:
    """The value of `password = …`, `le mot de passe est …`, `IDENTIFIED BY '…'` or `mysql -p…` when it looks like one,
    not like a word or a program; without a sign between, only when it can hardly be anything else."""
    for match, is_one in _candidates(text):
        value, end = match["value"], match.end("value")
        if text[end : end + 1] not in _CLOSING:
            value = _without_stop(value, text, end)
        if is_one(value):
            start = match.start("value")
            yield Match("password", start, start + len(value), value)


def _candidates(text: str) -> Iterator[tuple[re.Match[str], Callable[[str], bool]]]:
    folded = text.lower()
    nouns = _NOUN.finditer(text) if any(sign in folded for sign in _NOUN_SIGNS) else ()
    for noun in nouns:
        for pattern, is_one in _AFTER_NOUN:
            if match := pattern.match(text, noun.end()):
                yield match, is_one
        if "phrase" in noun[0].lower() and (match := _ASSIGNED_WORDS.match(text, noun.end())):
            yield match, _is_joined_words
        if (match := _TO.match(text, noun.end())) and _SETTING.search(text, max(0, noun.start() - 90), noun.start()):
            yield match, _looks_like_nothing_else
    for signs, pattern, is_one in _WITHOUT_NOUN:
        if any(sign in folded for sign in signs):
            for match in pattern.finditer(text):
                yield match, is_one


def _without_stop(value: str, text: str, end: int) -> str:
    """`Xk9!fr22.` ends a sentence; the sign in `Xk9fr22! mais` does not, as the sentence goes on."""
    kept = value.rstrip(".:!?…*")
    return value if value == kept + "!" and _GOES_ON.match(text, end) else kept


def looks_chosen(value: str) -> bool:
    """Digits with letters or many digits, or letters with a sign that words do not have."""
    if len(value) < 6 or is_dummy(value, _FEWEST_SIGNS):
        return False
    digits = any(c.isdigit() for c in value)
    letters = any(c.isalpha() for c in value)
    return (digits and (letters or value.isdigit())) or (letters and any(c in "!#^&+@" for c in value[:-1]))


def is_dummy(value: str, fewest: int) -> bool:
    """Fewer different signs than `fewest`, or what stands in place of a secret."""
    few = len(set(value.casefold())) < fewest
    return few or bool(_WORD_FOR_ONE.fullmatch(value) or _DUMMY.search(value))


def _looks_said(value: str) -> bool:
    return looks_chosen(value) and not _COUNT.match(value)


def _looks_like_nothing_else(value: str) -> bool:
    """Small letters, digits, and a sign or a digit among letters: no word, version, acronym or name of a variable."""
    if len(value) < 8 or not looks_chosen(value) or not any(c.isdigit() for c in value) or value == value.upper():
        return False
    capital = value != value.lower()
    signs = any(c in "!#$%&*+?^~@" or (c == "_" and capital) for c in value)
    return signs or (capital and bool(_INNER_DIGIT.search(value)))


def _is_joined_words(value: str) -> bool:
    return bool(_JOINED_WORDS.fullmatch(value)) and not is_dummy(value, _FEWEST_SIGNS)


def _has_letters(value: str) -> bool:
    return looks_chosen(value) and any(c.isalpha() for c in value)


_AFTER_NOUN = (
    (_ASSIGNED, looks_chosen),
    (_SAID, _looks_said),
    (_QUOTED, looks_chosen),
    (_BESIDE, _looks_like_nothing_else),
)
# A text without any of these is passed over quickly.
_NOUN_SIGNS = ("passw", "passc", "phrase", "pw", "mdp", "de passe", "de_passe", "depasse", "wifi", "wi-fi")
_WITHOUT_NOUN = (
    (("pass:", "pass=", "pass :", "pass =", 'pass"', "pass'", "pass*", "pass`"), _FIELD, _has_letters),
    (("identified by",), _SQL, looks_chosen),
    ((" -p", " --pass", "redis-cli"), _OPTION, looks_chosen),
)


def may_hold_password(text: str) -> bool:
    """Whether a password is in a text; quick where nothing speaks of one."""
    return next(passwords(text), None) is not None
