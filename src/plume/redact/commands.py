"""Passwords that a command takes as a word, or shows as its answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from plume.redact.chosen import has_letters, looks_chosen, looks_like_nothing_else

Candidate = tuple[re.Match[str], Callable[[str], bool]]
"""What may hold a password as its group `value`, and what tells whether this is one."""

_VALUE = r"['\"]?(?P<value>[^\s\"'”»,;<>{}()\[\]`|]{6,64}+)(?![(\[{<])"
_REST = r"\b[^\n|;]{0,100}?"
_SQL = re.compile(r"\b(?:identified[ ]by|(?:set|with)(?:[ ]encrypted)?[ ]password)[ ](?=['\"])" + _VALUE, re.I)
# The options of programs: `mysql -p…`, `docker login -p …`.
_OPTION = re.compile(
    rf"\b(?:(?:mysql|mariadb)[\w-]{{0,10}}{_REST}[ ]-p"
    rf"|(?:docker|podman|helm|skopeo|oras)[ ](?:registry[ ])?login{_REST}[ ](?:-p|--password)[ ]"
    rf"|(?:mongo(?:sh|dump|restore|import|export)?|az[ ]login|nmcli|xfreerdp|mosquitto_(?:pub"
    rf"|sub)){_REST}[ ](?:-p[ ]|-P[ ]|/p:)"
    rf"|ldap[a-z]{{3,8}}{_REST}[ ]-w[ ]|(?:un)?zip{_REST}[ ]-P[ ]|7za?{_REST}[ ]-p"
    rf"|smbclient{_REST}[ ]-U[ ]?['\"]?[\w.-]{{1,40}}%"
    rf"|htpasswd{_REST}[ ]-\w{{0,3}}b\w{{0,3}}[ ]\S{{1,80}}[ ][\w.@-]{{1,40}}[ ]|keytool{_REST}[ ]-(?:store|key)pass[ ]"
    rf"|net[ ]use{_REST}/user:[\w.\\-]{{1,40}}[ ]|net[ ]user[ ][\w.-]{{1,40}}[ ]|sshpass[ ]-p[ ]?"
    rf"|redis-cli{_REST}[ ](?:-a|--pass)[ ]|(?:requirepass|masterauth)[ ])" + _VALUE
)
_LONG_OPTION = re.compile(r"(?<=\s)--?(?:[a-z]{1,20}-){0,3}(?:password|passwd|pass|passphrase|pwd)[ ]" + _VALUE)
_PIPED = re.compile(  # echo 'Xk9fr22b' | sudo -S …, echo "bob:Xk9fr22b" | chpasswd
    r"\becho[ ](?:-n[ ])?['\"]?(?:[\w.-]{1,40}:)?(?P<value>[^\s\"':|]{6,64})['\"]?"
    r"[ ]?\|[ ]?(?:sudo[ ])?(?:sudo[ ]-S|chpasswd|passwd)\b"
)
_SHOWN = re.compile(  # $ echo $DB_PASSWORD, and the next line
    r"(?:\becho[ ]|\bprintenv[ ]|\bpass[ ]show[ ]|\bcat[ ]|\bget-secret\b|\bget[ ]secret\b"
    r"|-field=)[^\n]{0,80}?(?:pass|pwd|secret|mdp)"
    r"[^\n]{0,80}\r?\n" + _VALUE + r"(?=[ \t\r]{0,9}(?:\n|\Z))",
    re.I,
)
_BY_SIGN: tuple[tuple[tuple[str, ...], re.Pattern[str], Callable[[str], bool]], ...] = (
    (("identified by", " password "), _SQL, looks_chosen),
    (
        (
            " -p",
            " --pass",
            "redis-cli",
            "requirepass",
            "masterauth",
            "ldap",
            "zip",
            "smbclient",
            "htpasswd",
            "keytool",
            "net use",
            " /p:",
            "sshpass",
        ),
        _OPTION,
        looks_chosen,
    ),
    (("pass ", "password ", "passwd ", "phrase ", "pwd "), _LONG_OPTION, has_letters),
    (("chpasswd", "sudo -s", "| passwd"), _PIPED, looks_chosen),
    (("echo ", "printenv", "pass show", "cat ", "secret", "-field="), _SHOWN, looks_like_nothing_else),
)


def commands(text: str, folded: str) -> Iterator[Candidate]:
    """What commands take and show; `folded` is the text in small letters."""
    for signs, pattern, is_one in _BY_SIGN:
        if any(sign in folded for sign in signs):
            for match in pattern.finditer(text):
                yield match, is_one
