"""Check digits: which rows of digits can be a payment card, an IBAN, or a French social-security number."""

from __future__ import annotations

import re

# Length of an IBAN by country (ISO 13616 registry).
_IBAN_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
IBAN_LENGTHS = {country: length for length, countries in _IBAN_COUNTRIES.items() for country in countries.split()}
_IBAN_DIGITS = 8  # every country's account numbers have more

# First digits of the issuers in use, with the number of digits they give out (ISO/IEC 7812).
_CARD = re.compile(
    r"4[0-9]{15}"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
    r"|62[0-9]{14,17}"  # UnionPay
    r"|(?:30[0-5]|3[68][0-9])[0-9]{11}"  # Diners Club
    r"|(?:50(?:18|20|38)|5893|6304|6759|676[1-3])[0-9]{12}"  # Maestro
)


def is_card(digits: str) -> bool:
    """An issuer's number with a right last digit (Luhn, ISO/IEC 7812-1)."""
    if not _CARD.fullmatch(digits):
        return False
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def is_iban(code: str) -> bool:
    """A country's length and a remainder of 1 by 97 (ISO 13616, ISO 7064); capitals and digits, no spaces."""
    if len(code) != IBAN_LENGTHS.get(code[:2]) or sum(c.isdigit() for c in code) < _IBAN_DIGITS:
        return False
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def is_nir(code: str) -> bool:
    """13 characters and their key of 2 digits: 97 less the remainder by 97, Corsica's 2A and 2B read as 19 and 18."""
    number = int(code[:13].replace("2A", "19").replace("2B", "18"))
    return 97 - number % 97 == int(code[13:])
