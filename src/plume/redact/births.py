"""Dates of birth: a whole date just after words that say whose it is. Any other date is nobody's."""

from __future__ import annotations

import re
from collections.abc import Iterator

from plume.redact.match import Match

_OLDEST = 1900  # who was born before is history
_S = r"[ \u00a0\u202f]"
_FRENCH = (
    "janv(?:ier)?|f[eé]\u0301?v(?:r(?:ier)?)?|mars|avr(?:il)?|mai|juin|juil(?:let)?|ao[uû]\u0302?t|sept(?:embre)?|oct(?:obre)?"
    "|nov(?:embre)?|d[eé]\u0301?c(?:embre)?"
)
_ENGLISH = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
_DATE = re.compile(
    r"(?<![\w./-])(?:"
    r"[0-9]{1,2}(?P<s>[./-])[0-9]{1,2}(?P=s)(?P<y1>[0-9]{4}|[0-9]{2})"
    r"|(?P<y2>[0-9]{4})(?P<i>[./-])[0-9]{1,2}(?P=i)[0-9]{1,2}"
    rf"|[0-9]{{1,2}}{_S}[0-9]{{1,2}}{_S}(?P<y3>[0-9]{{4}})"
    rf"|(?:[0-9]{{1,2}}|1{_S}?er){_S}(?:{_FRENCH})\.?{_S}(?P<y4>[0-9]{{4}})"
    rf"|(?:the{_S})?[0-9]{{1,2}}(?:st|nd|rd|th)?(?:{_S}of)?{_S}(?:{_ENGLISH})\.?,?{_S}(?P<y5>[0-9]{{4}})"
    rf"|(?:{_ENGLISH})\.?{_S}[0-9]{{1,2}}(?:st|nd|rd|th)?,?{_S}(?P<y6>[0-9]{{4}})"
    r")(?![\w]|[./-][0-9])",
    re.I,
)
_IS = r"[\"'”»*]{0,3}[\s\u00a0:=–—-]{0,4}[\"'“«*]{0,3}[\s\u00a0]?"
_BIRTH = re.compile(
    r"(?<![^\W_])(?:"
    # née le, né un, né(e) à Brest le, nés tous deux le
    r"n(?:[eé]\u0301?(?:e|\(e\)|·e)?|ee)(?:s|\(s\))?[\s\u00a0](?:[^.;:!?\d\n]{0,40}[\s\u00a0,])?(?:le|un)"
    r"|date[\s_-]?(?:de[\s_-]?)?naissance(?:[\s\u00a0][^.;:!?\d\n]{0,30}|[\s\u00a0]est)?(?:[\s\u00a0]le)?"
    r"|naissance(?:[\s\u00a0]le)?|anniversaire(?:[\s\u00a0](?:est|tombe))?(?:[\s\u00a0]le)?|ddn"
    # born on, born in Leeds on, born
    r"|born(?:[\s\u00a0](?:[^.;:!?\d\n]{0,40}[\s\u00a0])?on)?"
    r"|(?:date[\s_-]?of[\s_-]?birth|birth[\s_-]?da(?:te|y)|d\.?o\.?b\.?)(?:[\s\u00a0](?:is|was|on)){0,2}"
    rf")(?:,?{_S}c['’]est(?:{_S}le)?)?{_IS}$",
    re.I,
)
_BEFORE = 90  # characters in which those words stand


def birth_dates(text: str) -> Iterator[Match]:
    """`né le 12 mars 1984`, `DOB: 1984-03-12`; day, month and year, since 1900."""
    for match in _DATE.finditer(text):
        year = next(year for year in match.group("y1", "y2", "y3", "y4", "y5", "y6") if year)
        possible = len(year) == 2 or _OLDEST <= int(year) < _OLDEST + 200
        if possible and _BIRTH.search(text[max(0, match.start() - _BEFORE) : match.start()]):
            yield Match("birth-date", match.start(), match.end(), match[0])
