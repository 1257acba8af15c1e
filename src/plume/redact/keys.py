"""Keys without a form of their own: values that look random, and that a text itself calls a key or token."""

from __future__ import annotations

import re
from collections.abc import Iterator

from plume.redact.chosen import is_dummy
from plume.redact.passwords import IS

MIN_RUN = 16
FEWEST_SIGNS = 8  # different ones in a key
_RUN = re.compile(rf"[0-9A-Za-z+/=]{{{MIN_RUN},}}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_JOINED_WORDS = re.compile(r"[A-Za-z]+[0-9]{0,4}")  # AccessTokenProvider2, where few capitals are
_PIECE = re.compile(r"[0-9A-Za-z]{6,}")
_VALUE = r"(?P<value>[\w+/=.~-]{16,250}+)(?![(\[{<])"
_ALONE = rf"[\"']?{_VALUE}(?=[\"']?[ \t\r]{{0,9}}(?:\n|\Z))"

_OF_WHAT = (
    "access|account|admin|api|app(?:lication)?|auth|client|consumer|deploy(?:ment)?|encryption|integration|master|private"
    "|root|secret|server|service|shared[ _-]?access|signing|storage|subscription|webhook|write"
)
_NAME = (
    rf"(?:(?:{_OF_WHAT})[ _-]?key(?:_(?:base|dev|live|new|old|prod|test|v?[0-9]{{1,2}}))?"
    r"|secret[ _-]?access[ _-]?key|(?:(?:access|auth|api|bot|bearer|refresh)[ _-]?)?token|(?:client[ _-]?)?secret"
    r"|(?<=_)auth(?=[\"']?[:=])"
    r"|(?:cl(?:é|e\u0301|ef?)|jeton)(?: (?:d['’])?(?:api|acc[eè]\u0300?s)| secr[eè]\u0300?te| priv[eé]\u0301?e"
    r"| (?:de )?(?:chiffrement|signature|production|service))|jeton"
    r"|(?:my|our|your|ma|notre|votre)[ ](?:key|cl(?:[eé]\u0301?|ef)))"
)
# openaiApiKey, SharedAccessKey; MAPS_KEY
_JOINED = r"(?-i:(?<=[a-z])(?:(?:Api|Secret|Access|Private|Auth|Account)Key|Token|Secret))"
_VARIABLE = (
    r"(?-i:(?<![^\W_])(?!(?:PUBLIC|PRIMARY|FOREIGN|CACHE|SORT|PARTITION|OBJECT|HOST|KNOWN)_)[A-Z][A-Z0-9]{1,24}_KEY)"
)
# What is no secret of a key: `private_key_id`, `token_hash`; but the `secret_id` of Vault is one.
_NO_PART = (
    r"(?!(?:alg\w*|created|exp\w*|fingerprint|format|hash|(?<!\bsecret_)id|ids|kind|len\w*|name|type|uri|url|usage"
    r"|version)(?![^\W_]))"
)
_SECRET_KIND = r"(?!(?:cache|foreign|host|object|partition|primary|public|sort)\b)"
_MAKER = (
    r"(?:algolia|anthropic|aws|azure|brevo|cloudflare|datadog|deepl|docker|gitea|github|gitlab|google|hugging[ ]?face"
    r"|mailgun|mapbox|maps|mistral|notion|openai|openweather|ovh|scaleway|sendgrid|sentry|slack|stripe|supabase|twilio)"
)
_NAMED = re.compile(
    rf"(?:(?:(?<![^\W_]){_NAME}|{_JOINED}|{_VARIABLE})"
    rf"(?: \([^()\n]{{1,15}}\))?(?:(?: (?:est|is|was|était|c['’]est))?(?:{IS}(?:base64:|\r?\n[ \t>*`]{{0,8}})?"
    rf"| )(?:0x)?"
    rf"|(?: [^\W\d_][\w’'-]{{0,14}}){{1,4}} (?:is|est|was|c['’]est) [\"'«“`]?"
    rf"|(?:(?: {_NO_PART}[^\W\d_][\w’'-]{{0,14}}){{1,3}}"
    rf"|(?:_{_NO_PART}[A-Za-z0-9]{{1,20}}){{1,2}}){IS}| [–—-]{{1,2}} |[ \t*]{{0,24}}\|[ \t*`]{{0,24}})"
    r"|(?<![^\W_])pass(?:word|wd)[ ]"  # as in .netrc
    # jeton Gitea est …, token for the wiki: …, clé Mapbox : …
    rf"|(?<![^\W_])(?:jeton|token)(?: [^\W\d_][\w’'-]{{0,14}}){{1,4}}(?: (?:est|is) |{IS})"
    rf"|(?<![^\W_])(?:{_MAKER} (?:api )?(?:key|token)|(?:cl(?:[eé]\u0301?|ef)|jeton|token) (?:api )?{_MAKER})"
    rf"(?: is | was | est | c['’]est |{IS}| )"
    rf"|(?<![^\W_])(?:my|our|the|their|your)(?: {_SECRET_KIND}[^\W\d_][\w’'-]{{0,19}}){{1,2}} key(?: is | was |{IS})"
    rf"|(?<![^\W_])(?:cl(?:[eé]\u0301?|ef)|key)(?: [^\W\d_][\w’'-]{{0,14}}){{1,2}}{IS}"
    # Authorization: Basic …, Bearer …; curl -u :…; ?appid=…
    r"|(?<![^\W_])(?:authorization[\"']?[ ]?[:=][ ]?[\"']?(?:(?:basic|token|bot|apikey|api-key|key)[ ])?|bearer[ ])"
    r"|(?<=\s)(?:-u|--user)[ =][\"']?:|(?<=[?&])(?:app_?id|key|auth|sig|signature)="
    rf"){_VALUE}",
    re.I,
)
_WORD_FOR_KEY = (
    r"(?:token|secret|(?:api|secret|access|auth)[ _-]?key|cl(?:é|ef?)[ ](?:d['’])?(?:api|acc[eè]s|secr[eè]te)|jeton)"
)
_SAID_AFTER = re.compile(  # "6ba8…"  # auth token; 6ba8… is my API key
    rf"(?<![\w+/=.~-]){_VALUE}(?:[\"'][^\n\"']{{0,20}}?(?:\#|//|--|/\*|<!--)[ ]?(?:[\w’'-]{{1,15}}[ ]){{0,3}}"
    r"|[\"'»”`]?[ ](?:is|est|as|comme)[ ](?:[\w’'-]{1,15}[ ]){0,3})" + rf"{_WORD_FOR_KEY}(?!\w)",
    re.I,
)
# $ echo $DEEPL_AUTH_KEY, and the next line
_SHOWN = re.compile(
    r"(?:\becho[ ]|\bprintenv[ ]|\bcat[ ]|\bprint\(|\bpass[ ]show[ ]|-field=|\bget[ -]secret"
    r"|\bauth[ ])[^\n]{0,80}?(?:key|token|secret|cl[eé]\b|jeton)"
    rf"[^\n]{{0,80}}\r?\n[ \t>]{{0,4}}{_ALONE}",
    re.I,
)


def keys_by_name(text: str) -> Iterator[tuple[int, str]]:
    """Where each begins, and the value of `api_key = …`, `token: …` and the like when it looks random."""
    for pattern in (_NAMED, _SAID_AFTER, _SHOWN):
        for match in pattern.finditer(text):
            value = match["value"].rstrip(".")
            if is_key(value):
                yield match.start("value"), value


def is_key(value: str) -> bool:
    """At least 16 signs in a row with letters and digits among them, or scrambled pieces, or a UUID; no dummy."""
    if is_dummy(value, FEWEST_SIGNS) or _is_name(value):
        return False
    mixed = any(re.search("[0-9]", run) and re.search("[A-Za-z]", run) for run in _RUN.findall(value))
    return mixed or bool(_UUID.search(value)) or _is_scrambled(value)


def _is_name(value: str) -> bool:
    return bool(_JOINED_WORDS.fullmatch(value)) and 4 * sum(c.isupper() for c in value) <= len(value)


def _is_scrambled(value: str) -> bool:
    """Capitals, small letters and digits within one piece between the hyphens: `qqi-x8PikL2t_yiRbiMb`."""
    if len(value) < MIN_RUN:
        return False
    pieces = [piece for piece in _PIECE.findall(value) if re.search("[a-z][A-Z]|[A-Z][a-z]*[A-Z]", piece)]
    return any(re.search("[0-9][A-Za-z]", piece) and re.search("[A-Za-z][0-9]", piece) for piece in pieces)
