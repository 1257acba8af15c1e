"""Does a value look like a password that somebody chose, or like a word, a version or what stands in place of one?"""

from __future__ import annotations

import re

FEWEST_SIGNS = 4  # different ones
_COUNT = re.compile(r"[0-9]{1,3}-?(?:bit|car|char|chiffre|day|digit|h|jour|letter|lettre|min|mois|month|sign)", re.I)
_TIME = re.compile(r"[0-9:.TZ/+-]+|[0-9a-f]*:[0-9a-f:.]+", re.I)  # or an address of IPv6
_JOINED_WORDS = re.compile(r"[^\W\d_]{3,}(?:[._-][^\W\d_]{3,}){2,}")
_SHORT_WORDS = re.compile(r"[^\W\d_]{2,}(?:-[^\W\d_]{2,}){2,}")
_STANDARD = re.compile(r"[A-Z]{2,6}-?[0-9]{1,5}")
_INNER_DIGIT = re.compile(r"[^\W\d_][0-9]+[^\W\d_]")
# What people write in place of a secret, and what programs write: `your-key`, `${PASSWORD}`, `****`, `os.environ`.
_DUMMY = re.compile(
    r"example|exemple|xxxx|\.\.\.|…|\*\*\*|your|votre|placeholder|dummy|change[_-]?me|redacted|insert|my[_-]?(?:pass|secret|api)"
    r"|[<>{}]|\$[({]|^\$|%s|://|^//|^(?:user|admin|pass|pwd|mdp|secret|env|process|config|settings|args|self|os)\b"
    r"|^(?:aes|argon|base|bcrypt|int|md|scrypt|sha|uint|utf)[_-]?[0-9]{1,3}(?:sum)?\b",
    re.I,
)
_WORD_FOR_ONE = re.compile(r"bar|foo|key|mdp|motdepasse|none|null|pass(?:w(?:or)?d)?|pw|pwd|secret|test|token", re.I)
_PHRASE = re.compile(r"[^\W\d_][\w’'-]*(?:[ ][\w’'-]+){2,11}")
_ABOUT_ONE = re.compile(  # what a form says
    r"\b(?:at[ ]least|choisi\w*|choose|doit|enter|entrez|est|forgot\w*|incorrect\w*|invalide?|is|must|not"
    r"|oubli\w*|passe?|passphrase"
    r"|password|phrase|please|requi\w+|saisi\w*|should|too|trop|type|votre|wrong|your)\b",
    re.I,
)


def looks_chosen(value: str) -> bool:
    """Digits with letters or many digits, or letters with a sign that words do not have."""
    if len(value) < 6 or is_dummy(value, FEWEST_SIGNS):
        return False
    digits = any(c.isdigit() for c in value)
    letters = any(c.isalpha() for c in value)
    return (digits and (letters or value.isdigit())) or (letters and any(c in "!#^&+@" for c in value[:-1]))


def looks_said(value: str) -> bool:
    """Chosen, and no `12-character` or the like."""
    return looks_chosen(value) and not _COUNT.match(value)


def looks_mixed(value: str) -> bool:
    """Letters with two digits or more, or with a digit and a sign: `raspberry314`; no time, no address."""
    if not looks_said(value) or _TIME.fullmatch(value) or "/" in value or ("_" in value and value == value.lower()):
        return False
    digits = sum(c.isdigit() for c in value)
    return any(c.isalpha() for c in value) and (digits >= 2 or (digits > 0 and any(c in "!#$%&*+?^~@" for c in value)))


def looks_like_nothing_else(value: str) -> bool:
    """Small letters, digits, and a sign or a digit among letters: no word, version, acronym or name of a variable."""
    if len(value) < 8 or not looks_chosen(value) or not any(c.isdigit() for c in value) or value == value.upper():
        return False
    capital = value != value.lower()
    signs = any(c in "!#$%&*+?^~@" or (c == "_" and capital) for c in value)
    return signs or (capital and bool(_INNER_DIGIT.search(value)))


def is_no_standard(value: str) -> bool:
    """Mixed, and no `RFC2617` or the like."""
    return looks_mixed(value) and not _STANDARD.fullmatch(value)


def looks_shared(value: str) -> bool:
    """What people give out as the key of a network: mixed, or words joined by hyphens."""
    return looks_mixed(value) or (bool(_SHORT_WORDS.fullmatch(value)) and not is_dummy(value, FEWEST_SIGNS))


def has_letters(value: str) -> bool:
    """Chosen, and not of digits only, as results of tests are."""
    return looks_chosen(value) and any(c.isalpha() for c in value)


def is_joined_words(value: str) -> bool:
    """`phare-galerne-goémon`."""
    return bool(_JOINED_WORDS.fullmatch(value)) and not is_dummy(value, FEWEST_SIGNS)


def is_phrase(value: str) -> bool:
    """Three words or more that say nothing of passwords themselves."""
    return bool(_PHRASE.fullmatch(value)) and not _ABOUT_ONE.search(value) and not is_dummy(value, FEWEST_SIGNS)


def is_dummy(value: str, fewest: int) -> bool:
    """Fewer different signs than `fewest`, or what stands in place of a secret."""
    few = len(set(value.casefold())) < fewest
    return few or bool(_WORD_FOR_ONE.fullmatch(value) or _DUMMY.search(value))
