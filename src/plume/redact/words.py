"""Passwords that are a word: only where the text leaves nothing else for it to be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from plume.redact.chosen import FEWEST_SIGNS, is_dummy

_WORD = r"(?P<value>[^\W\d_]{5,30}(?:[_.-][^\W\d_]{2,20}){0,3})"
_NOUN = r"(?:pass(?:word|wd|phrase)?|pwd|mdp|mot[ _]de[ _]passe)"
_END = r"(?=[ \t\r]{0,9}(?:#[^\n]{0,99})?(?:\n|\Z))"
# DB_PASSWORD=cloudberry
_VARIABLE = re.compile(
    rf"^[ \t-]{{0,12}}(?:(?i:export|set|env)[ ]|\$env:)?[A-Z][A-Z0-9_]{{0,40}}(?:PASSWORD|PASSWD|PASSPHRASE"
    rf"|(?<=_)(?:PASS|PWD|PW))"
    rf"[ ]{{0,24}}[:=][ ]{{0,24}}(?P<quote>[\"']?){_WORD}(?P=quote){_END}",
    re.M,
)
# password = "cloudberry", a value in a program
_LITERAL = re.compile(
    rf"(?:(?<![^\W_]){_NOUN}"
    rf"|(?-i:(?<=[a-z])Pass(?:word)?))[ \t]{{0,24}}=>?[ \t]{{0,24}}(?P<quote>[\"']){_WORD}(?P=quote)",
    re.I,
)
# "password": "cloudberry"; a text to be shown would have a capital
_ENTRY = re.compile(
    rf"(?P<key>[\"']){_NOUN}(?P=key)[ \t]{{0,9}}:[ \t]{{0,9}}(?P<quote>[\"'])(?P<value>[a-zà-ÿ]{{6,30}})(?P=quote)"
)
# the password is "cloudberry"
_SAID = re.compile(
    rf"(?<![^\W_]){_NOUN}(?:[ ][\w’'-]{{1,15}}){{0,5}}[ ](?:is|was|est|était|c['’]est)[ ]"
    rf"(?:\"{_WORD}\"|«[ \u00a0\u202f]?(?P<french>[^\W\d_]{{5,30}})[ \u00a0\u202f]?»|“(?P<curly>[^\W\d_]{{5,30}})”)",
    re.I,
)
# Username: kirsty / Password: cloudberry, one below the other or side by side
_LOGIN = (
    r"(?:user(?:[ _-]?(?:name|id))?|log-?in|identifiant|id|utilisateur|nom[ ]d['’]utilisateur|compte"
    r"|account|e-?mail|courriel|ssid|wi-?fi(?:[ ]name)?|network(?:[ ]name)?|r[ée]seau)"
)
_PAIR = re.compile(
    rf"(?<![^\W_]){_LOGIN}[\"']?[ \t\u00a0]{{0,9}}[:=][ \t]{{0,9}}[\"']?(?P<user>[^\s\"',;]{{2,60}})[\"']?"
    rf"(?:[ \t]{{0,3}}[,;/|–—-]?[ \t]{{0,3}}(?:\r?\n)?[ \t>*•-]{{0,12}})"
    rf"[\"']?{_NOUN}[\"']?[ \t\u00a0]{{0,9}}[:=][ \t]{{0,9}}"
    rf"(?P<quote>[\"']?){_WORD}(?P=quote)(?=[ \t\r]{{0,9}}(?:[,}}\n]|\Z))",
    re.I,
)
# What a field says of itself, of its type or of its state.
_STATE = re.compile(
    r"above|absent\w*|accueil|affich\w+|any|aucune?|demand\w+|donn[ée]\w*|fourni\w*|given|gratuit\w*|included|inclus\w*|not[ée]e?|open"
    r"|ouvert|posted|printed|reception|r[ée]ception|required|attached|below|blank|boolean|bytes|char|charfield|chiffr\w+|confiden\w+|correct\w*|credentials?|default"
    r"|d[ée]faut|disabled|empty|enabled|encrypted|filtered|exp\w+|facultatif|false|field|forgot\w*|hash\w*|hidden|identi\w+|incorrect\w*|input"
    r"|invalid\w*|jamais|keyring|login|manquant\w*|masked|masqu\w+|missing|modifi\w+|never|obligatoire|oubli\w*|optional|plain\w*"
    r"|prompt|prot\w+|reset|requ?i\w+|same|sensitive|secret\w*|secure\w*|string|strong|submit|temporary|text\w*|true|type|undefined|unchanged"
    r"|unknown|inconnu\w*|inchang\w+|update\w*|username|valeur|valid\w*|value|varchar|vault|vide|visible|weak|wrong|voir|ci-dessous",
    re.I,
)
_NAME_OF_ONE = re.compile(r"pass|pwd|mdp|secret|token|creds|contrase|kennwort", re.I)
_CAMEL = re.compile(r"[a-z][A-Z]")
_SIGNS = ("pass", "pwd", "mdp")


def word_passwords(text: str, folded: str) -> Iterator[tuple[int, str]]:
    """Where each begins, and the word."""
    if not any(sign in folded for sign in _SIGNS):
        return
    for pattern in (_VARIABLE, _LITERAL, _ENTRY, _SAID, _PAIR):
        for match in pattern.finditer(text):
            group = next(name for name in ("value", "french", "curly") if match.groupdict().get(name))
            bare = pattern is _PAIR and not match["quote"]
            if _is_one(match[group]) and not (bare and _is_code(match["user"], match[group])):
                yield match.start(group), match[group]


def _is_one(word: str) -> bool:
    told = _STATE.fullmatch(word) or _NAME_OF_ONE.search(word)
    return not told and not is_dummy(word, FEWEST_SIGNS)


def _is_code(user: str, word: str) -> bool:
    """`user: str, password: dbSecret`: names and types of a program."""
    return bool(_STATE.fullmatch(user) or _CAMEL.search(word) or user in ("str", word) or "." in word)
