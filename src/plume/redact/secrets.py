"""Secrets: keys whose maker gave them a form, private keys, and values that a text itself calls a password or key."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

from plume.redact.chosen import is_dummy, looks_chosen
from plume.redact.keys import FEWEST_SIGNS, MIN_RUN, is_key, keys_by_name
from plume.redact.makers import MAKERS
from plume.redact.match import Match, Recogniser
from plume.redact.passwords import may_hold_password, passwords

# Each begins where no key sign stands before it, so that a long row of signs is read once.
_TOKENS = {
    "anthropic-key": re.compile(r"(?<![\w-])sk-ant-[\w-]{20,250}", re.A),
    "openai-key": re.compile(r"(?<![\w-])sk-(?!ant-)[\w-]{20,250}", re.A),
    "aws-key": re.compile(r"(?<![\w-])(?:AKIA|ASIA)[0-9A-Z]{16}(?!\w)", re.A),
    "github-token": re.compile(r"(?<![\w-])(?:gh[opsru]_[0-9A-Za-z]{36,250}|github_pat_\w{22,250})", re.A),
    "gitlab-token": re.compile(r"(?<![\w-])gl(?:pat|ptt|dt|rt|cbt|oas|soat)-[\w-]{20,250}", re.A),
    "slack-token": re.compile(r"(?<![\w-])xox[abceoprs]-(?:[0-9]-)?[0-9]{6,20}-[0-9A-Za-z-]{10,250}", re.A),
    "google-key": re.compile(r"(?<![\w-])AIza[\w-]{35}(?!\w)", re.A),
    "hugging-face-token": re.compile(r"(?<![\w-])hf_[0-9A-Za-z]{30,250}", re.A),
    "stripe-key": re.compile(r"(?<![\w-])[rs]k_(?:live|test)_[0-9A-Za-z]{16,250}", re.A),
}
_SURE = frozenset(["aws-key", "google-key", "hugging-face-token", "slack-token"])  # by prefix and length alone
_JWT = re.compile(r"(?<![\w-])(eyJ[\w-]{10,4000})\.eyJ[\w-]{10,8000}\.[\w-]{10,2000}", re.A)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?P<body>(?:[^-]|-(?!----)){16,16000})-----END [A-Z0-9 ]{1,50}-----|(?P<cut>[0-9A-Za-z+/=\s\\]{16,16000}))"
)
_URL = re.compile(r"://(?P<both>(?P<user>[^\s/:@\"'<>]{0,100}):(?P<password>[^\s/@\"'<>]{1,200}))@(?=[\w\[])")

_KEY_IN_URL = re.compile(r"(?<!ssh)://(?P<key>[\w.~+%-]{16,200}+)@(?=[\w\[])", re.A)  # of Sentry: https://<key>@host

_USER_OPTION = re.compile(
    r"(?<=[\s])(?:-u|--(?:proxy-)?user)[ =][\"']?(?P<both>(?P<user>[^\s:\"'/@]{1,64}):(?P<password>[^\s\"'@]{6,200}))"
)
_CURL = re.compile(r"\b(?:curl|wget|https?)\b[^\n]*$")


def _recogniser(kind: str, pattern: re.Pattern[str]) -> Recogniser:
    def tokens(text: str) -> Iterator[Match]:
        for match in pattern.finditer(text):
            if is_key(match[0]) or (kind in _SURE and not is_dummy(match[0], FEWEST_SIGNS)):
                yield Match(kind, match.start(), match.end(), match[0])

    return tokens


def jwts(text: str) -> Iterator[Match]:
    """JSON Web Tokens whose first part is what it must be: JSON that names an algorithm (RFC 7519)."""
    for match in _JWT.finditer(text):
        head = match[1]
        try:
            header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        except (ValueError, RecursionError):
            continue
        if isinstance(header, dict) and "alg" in header:
            yield Match("jwt", match.start(), match.end(), match[0])


def private_keys(text: str) -> Iterator[Match]:
    """PEM and PGP blocks with something in them, the end line included where there is one."""
    for match in _PRIVATE_KEY.finditer(text):
        body = match["body"] or match["cut"]
        if is_key(body):
            yield Match("private-key", match.start(), match.end(), match[0])


def url_credentials(text: str) -> Iterator[Match]:
    """User and password of `https://user:password@host`, unless this is a word for one or the user's name again; a key
    that stands there alone; and those of `curl -u user:password`."""
    for match in _URL.finditer(text):
        password = match["password"]
        if password.casefold() != match["user"].casefold() and not is_dummy(password, 2):
            yield Match("url-credentials", *match.span("both"), match["both"])
    for match in _KEY_IN_URL.finditer(text):
        if is_key(match["key"]):
            yield Match("url-credentials", *match.span("key"), match["key"])
    for match in _USER_OPTION.finditer(text):
        if looks_chosen(match["password"]) and _CURL.search(text[max(0, match.start() - 100) : match.start()]):
            yield Match("url-credentials", *match.span("both"), match["both"])


def named_keys(text: str) -> Iterator[Match]:
    """Keys of `MAKERS`, and the value of `api_key = …`, `token: …` and the like when it looks random."""
    for match in MAKERS.finditer(text):
        start, end = match.span(match.lastgroup or 0)
        key = text[start:end]
        if _holds_long_mixed_run(key.encode()) and not is_dummy(key, FEWEST_SIGNS):
            yield Match("api-key", start, end, key)
    for start, value in keys_by_name(text):
        yield Match("api-key", start, start + len(value), value)


SECRETS: dict[str, Recogniser] = {
    "private-key": private_keys,
    **{kind: _recogniser(kind, pattern) for kind, pattern in _TOKENS.items()},
    "jwt": jwts,
    "url-credentials": url_credentials,
    "api-key": named_keys,
    "password": passwords,
}

# --- is it worth looking? -------------------------------------------------------------------------

_KEY_SIGNS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/=_-"
_ALIKE = bytes(ord("a") if byte in _KEY_SIGNS else 0 for byte in range(256))
_LONG = b"a" * MIN_RUN
_LONG_RUN = re.compile(rb"[0-9A-Za-z+/=_-]*")
_TELLING = re.compile(rb"[0-9]|A[KS]IA|hf_")


def may_hold_secret(text: str) -> bool:
    """Whether anything of `SECRETS` can be in a text: no when none is, about 4 ns a character."""
    if ("@" in text and (_URL.search(text) or _KEY_IN_URL.search(text))) or (
        "-u" in text and _USER_OPTION.search(text)
    ):
        return True
    return may_hold_password(text) or _holds_long_mixed_run(text.encode("utf-8", "surrogatepass"))


def _holds_long_mixed_run(raw: bytes) -> bool:
    """16 signs of a key in a row, a digit among them: what almost every key has, and no word."""
    alike = raw.translate(_ALIKE)
    at = alike.find(_LONG)
    while at >= 0:
        end = _LONG_RUN.match(raw, at).end()  # type: ignore[union-attr]
        if _TELLING.search(raw, at, end):
            return True
        at = alike.find(_LONG, end)
    return False
