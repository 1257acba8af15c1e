"""Personal data that has a form: addresses of mail and machines, telephone, bank and social-security numbers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from plume.redact.hosts import length_of_host
from plume.redact.match import Match, Recogniser
from plume.redact.numbers import IBAN_LENGTHS, is_card, is_iban, is_nir
from plume.redact.phone import phones
from plume.redact.spelt import may_hold_spelt, spelt_emails

_L = r"\w\u0300-\u036f"  # letters, also those whose accent is a character of its own
_EMAIL = re.compile(
    rf"(?<![{_L}.+%-])(?P<local>[{_L}.+%-]{{0,63}}[{_L}+%-]|(?<![\w\"])\"[{_L}.+%-]{{1,62}}\")(?:@|%40)"
    rf"(?P<host>(?:[^\W_](?:[{_L}-]{{0,61}}[^\W_][\u0300-\u036f]?)?\.){{1,8}}[^\W\d_]{{2,24}})(?![\w@])"
)
_IRISH = re.compile(rf"(?<![{_L}.+%-])(?:[{_L}+-]{{1,20}}\.)?[oO]['’]$")  # o'brien@…, mary.o'neil@…
_IN_URL = re.compile(r"://[^\s/@]{0,80}$")
_FILE_ENDING = re.compile(r"avif|css|csv|gif|html|ico|jpe?g|js|json|md|mp4|pdf|png|py|svg|ts|txt|webp|ya?ml", re.I)
_RESERVED = re.compile(r"(?:.+\.)?(?:example\.(?:com|net|org)|example|test|invalid|localhost)", re.I)  # RFC 2606
_NOBODY = re.compile(
    r"adresse|address|bar|contact|e?mail|ex[ae]mple|first(?:name)?\.last(?:name)?|foo|jane\.doe|john\.doe|me|name|nom"
    r"|nom\.pr[eé]nom|pr[eé]nom\.nom|someone|test|user(?:name)?|utilisateur|votre\.nom|you|your\.name",
    re.I,
)

_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.[0-9])")
_MAPPED = re.compile(r"(?<![\w:.])::ffff:$", re.I)  # ::ffff:192.0.2.1, IPv4 within IPv6 (RFC 4291)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_VERSION = re.compile(
    r"(?:\b(?:v|ver|vers\.|version|release|rev|build|firmware|section|article|chapitre|chapter)|§)\W{0,3}$", re.I
)
_RESOLVERS = frozenset(["1.0.0.1", "1.1.1.1", "8.8.4.4", "8.8.8.8", "9.9.9.9", "149.112.112.112"])
_SMALL = 20  # four numbers up to this one are a version or a section, and an address once in 27,000

_SHORTEST_IPV6 = 6  # 2a01::

_SPACE = r"[ \u00a0\u202f\u2009\u2010\u2011-]"
_DOT = r"[ \u00a0\u202f\u2009\u2010\u2011.-]"
_LINE_BREAK = r"[ \t]{0,3}\r?\n[ \t>]{0,12}"
_CARD = re.compile(
    r"(?<![\w.])(?:"
    rf"[2-6][0-9]{{3}}(?P<g>{_DOT}?)[0-9]{{4}}(?P=g)[0-9]{{4}}(?P=g)[0-9]{{4}}"
    rf"|3[47][0-9]{{2}}(?P<a>{_DOT}?)[0-9]{{6}}(?P=a)[0-9]{{5}}"
    rf"|3[0689][0-9]{{2}}(?P<d>{_DOT})[0-9]{{6}}(?P=d)[0-9]{{4}}"  # ungrouped, 14 digits are a French company's
    rf"|62[0-9]{{2}}(?P<u>{_DOT})[0-9]{{4}}(?P=u)[0-9]{{4}}(?P=u)[0-9]{{4}}(?P=u)[0-9]{{3}}"
    r")(?!\w|\.[0-9])"
)
# In whatever groups somebody types one; other numbers may stand beside.
_LOOSE_CARD = re.compile(rf"(?<![\w.,/-])(?=([2-6][0-9]{{1,18}}(?:{_DOT}{{1,2}}[0-9]{{1,16}}){{0,7}}))")
_OF_CARD = re.compile(
    r"\b(?:american express|amex|cards?|cartes?|cb|credit|debit|diners|discover|jcb|maestro|mastercard|pan|visa)\b",
    re.I,
)
_IBAN = re.compile(  # others may follow
    rf"(?<![^\W_])(?=([A-Za-z]{{2}}(?:{_SPACE}|{_LINE_BREAK})?[0-9]{{2}}"
    rf"(?:(?:{_DOT}{{1,2}}|{_LINE_BREAK})?[0-9A-Za-z]){{11,29}}))"
)
_NIR = re.compile(
    rf"(?<![\w.])[1-478]{_DOT}?[0-9]{{2}}{_DOT}?(?:0[1-9]|1[0-2]|[2-9][0-9]){_DOT}?"
    rf"(?:[0-9]{{2}}|2[ABab]){_DOT}?[0-9]{{3}}{_DOT}?[0-9]{{3}}"
    rf"(?:{_DOT}?|[ \u00a0]?[/|–-][ \u00a0]?|[ \u00a0]?\(|,?[ \u00a0]\(?cl(?:[eé]|ef)[ \u00a0]?:?[ \u00a0])"
    r"(?:[0-8][0-9]|9[0-7])(?![\w]|\.[0-9])",
    re.I,
)


def emails(text: str) -> Iterator[Match]:
    """Not `logo@2x.png`, `git@host`, the user and password of a URL, nor `user@example.com`."""
    for start, end in spelt_emails(text):
        yield Match("email", start, end, text[start:end])
    if "@" not in text and "%40" not in text:
        return
    for match in _EMAIL.finditer(text):
        host, local = match["host"], match["local"].lstrip(".-")
        host = host[: length_of_host(host)]
        end = match.start("host") + len(host)
        start = match.end("local") - len(local)
        irish = _IRISH.search(text[max(0, start - 30) : start])
        start -= len(irish[0]) if irish else 0
        nobody = local == "git" or (_RESERVED.fullmatch(host) and _NOBODY.fullmatch(local))
        if nobody or _FILE_ENDING.fullmatch(host.rpartition(".")[2]):
            continue
        if not _IN_URL.search(text[max(0, start - 100) : start]):
            yield Match("email", start, end, text[start:end])


def ip_addresses(text: str) -> Iterator[Match]:
    """Public addresses: not a private network's, not those of examples, nor of the well-known name servers."""
    if "." in text:
        for match in _IPV4.finditer(text):
            address = _address(match[0])
            small = all(int(number) <= _SMALL for number in match[0].split("."))
            if not address or not address.is_global or address.is_multicast or small or match[0] in _RESOLVERS:
                continue
            before = text[max(0, match.start() - 20) : match.start()]
            if not _VERSION.search(before):
                start = match.start() - (len(mapped[0]) if (mapped := _MAPPED.search(before)) else 0)
                yield Match("ip", start, match.end(), text[start : match.end()])
    if ":" in text:
        for match in _IPV6.finditer(text):
            address = _address(match[0]) if len(match[0]) >= _SHORTEST_IPV6 else None
            if address and address.is_global and int(address) >> 125 == 1:  # 2000::/3, what is given out
                yield Match("ip", match.start(), match.end(), match[0])


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def cards(text: str) -> Iterator[Match]:
    """Payment cards, in one piece or in the groups printed on the card; in any groups where the text speaks of one."""
    for match in _CARD.finditer(text):
        if is_card(_compact(match[0])):
            yield Match("card", match.start(), match.end(), match[0])
    if not _OF_CARD.search(text):
        return
    for match in _LOOSE_CARD.finditer(text):
        near = text[max(0, match.start() - 80) : match.start()] + "\n" + text[match.end(1) : match.end(1) + 50]
        ends = [group.end() for group in re.finditer("[0-9]+", match[1])]
        for end in reversed(ends if _OF_CARD.search(near) else []):
            after = text[match.start() + end : match.start() + end + 1]
            if not (after.isalnum() or after == "_") and is_card(_compact(match[1][:end])):
                yield Match("card", match.start(), match.start() + end, match[1][:end])
                break


def ibans(text: str) -> Iterator[Match]:
    """Bank accounts; what follows the country's length must be another word."""
    for match in _IBAN.finditer(text):
        signs = [at for at, sign in enumerate(match[1]) if sign.isalnum()]
        length = IBAN_LENGTHS.get(match[1][:2].upper())
        if not length or len(signs) < length:
            continue
        code = match[1][: signs[length - 1] + 1]
        end = match.start() + len(code)
        one_case = code in (code.upper(), code.lower())
        if one_case and not text[end : end + 1].isalnum() and is_iban(_compact(code).upper()):
            yield Match("iban", match.start(), end, code)


def nirs(text: str) -> Iterator[Match]:
    """French social-security numbers with their key."""
    for match in _NIR.finditer(text):
        if is_nir(_compact(match[0]).upper()):
            yield Match("nir", match.start(), match.end(), match[0])


def _compact(text: str) -> str:
    return re.sub(r"cl(?:[eé]|ef)|[^0-9A-Za-z]", "", text, flags=re.I)


PERSONAL: dict[str, Recogniser] = {
    "iban": ibans,
    "nir": nirs,
    "card": cards,
    "ip": ip_addresses,
    "email": emails,
    "phone": phones,
}

# --- is it worth looking? -------------------------------------------------------------------------

_DIGITS_ALIKE = bytes(ord("0") if ord("0") <= byte <= ord("9") else byte for byte in range(256))
_BETWEEN_DIGITS = (
    " .-/()\n\u00a0\u202f\u2009\u2010\u2011\u2013·".encode()
)  # of the spaces, each byte by itself: at worst one looks in vain
_MANY_DIGITS = b"0" * 9  # the fewest in a telephone number without a plus sign, a card, an IBAN, a NIR
_PLUS = re.compile(r"\+[ \u00a0]?\(?[1-9]")
_DOTTED = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_COLONS = re.compile(r":(?::|[0-9A-Fa-f]{1,4}:(?::|[0-9A-Fa-f]{1,4}:))")


def may_hold_personal(text: str) -> bool:
    """Whether anything of `PERSONAL` can be in a text: no when none is, about 4 ns a character.

    Python's patterns are slow to start at one of several characters and fast to start at one; hence the shapes.
    """
    if (
        "@" in text
        or "%40" in text
        or may_hold_spelt(text)
        or _PLUS.search(text)
        or _DOTTED.search(text)
        or _COLONS.search(text)
    ):
        return True
    return _MANY_DIGITS in text.encode("utf-8", "surrogatepass").translate(_DIGITS_ALIKE, _BETWEEN_DIGITS)
