"""Dates of birth: a whole date beside words that say whose it is, or in a column that does. Any other is nobody's."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

from plume.redact.columns import cells
from plume.redact.match import Match
from plume.redact.personal import nirs

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
_SIGN = rf"{_S}?[./\u2010\u2011\u2013-]{_S}?"
_YEAR = rf"[0-9]{{4}}|['’]?[0-9]{{2}}(?!{_S}(?:h|heures?|ans|minutes|o['’]clock|am|pm|years?)\b|[:’'])"
_DATE = re.compile(
    r"(?<![\w./-])(?:"
    rf"[0-9]{{1,2}}(?P<s>{_SIGN})[0-9]{{1,2}}(?P=s)(?P<y1>[0-9]{{4}}|[0-9]{{2}})"
    rf"|(?P<y2>[0-9]{{4}})(?P<i>{_SIGN})[0-9]{{1,2}}(?P=i)[0-9]{{1,2}}"
    rf"|[0-9]{{1,2}}(?P<m>[./-])(?:{_ENGLISH}|{_FRENCH})(?P=m)(?P<y8>[0-9]{{4}}|[0-9]{{2}})"
    rf"|[0-9]{{1,2}}{_S}[0-9]{{1,2}}{_S}(?P<y3>[0-9]{{4}})"
    rf"|(?:[0-9]{{1,2}}|1{_S}?er){_S}?(?:{_FRENCH})\.?,?{_S}?(?P<y4>{_YEAR})"
    rf"|(?:the{_S})?[0-9]{{1,2}}(?:st|nd|rd|th)?(?:{_S}of)?{_S}?(?:{_ENGLISH})\.?,?{_S}?(?P<y5>{_YEAR})"
    rf"|(?:{_ENGLISH})\.?{_S}?(?:the{_S})?[0-9]{{1,2}}(?:st|nd|rd|th)?,?{_S}(?P<y6>{_YEAR})"
    rf"|(?P<y9>[0-9]{{4}})[ ./-](?:{_ENGLISH}|{_FRENCH})[ ./-][0-9]{{1,2}}"
    r"|(?P<y7>[0-9]{4})(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])(?P<y10>(?:19|20)[0-9]{2})"
    r")(?!(?!T[0-9]{2}:)\w|[./-][0-9])",
    re.I,
)

# What stands between the words and the date: a sign, leaders of a form, the next cell, the `value` of a field.
_OPENING = r"\\?[\"'“«*(]{0,3}[\s\u00a0]?"
_IS = (
    r"\\?[\"'”»*]{0,3}(?:[\"']?,\s{0,9}[\"']?(?:value|valeur|answer|r[eé]ponse)[\"']?)?"
    r"(?:[\s\u00a0:=|>?→–—-]{0,4}|[ \t\u00a0:]{0,3}[.…·_]{2,60}[ \t\u00a0:]{0,3}|[ \t\u00a0|:]{5,40}|[\"']?[,;][\"']?)"
    rf"{_OPENING}"
)
_WEEKDAY = (
    r"(?:lun|mar|mercre|jeu|vendre|same)di|dimanche|(?:mon|tues|wednes|thurs|fri|satur|sun)day"  # né un mardi, 3 mars
)
_BIRTH_OF = r"(?<!acte[ ]de[ ])(?<!cong[eé][ ]de[ ])naissance"
_DAY_OF_BIRTH = (
    r"date[\s_-]?(?:et[ ]lieu[ ])?(?:de[\s_-]?)?naiss(?:ance\b|\b\.?)|ddn|b-?day(?:['’]s)?|naiss\.|birth[\s_-]?(?:date"
    r"|day|dt|(?=[ ]?:))(?:['’]s)?"
    r"|d(?:ate|t)[\s_-]?naiss?|date[\s_-]?of[\s_-]?birth|d\.?o\.?b\b\.?"
    r"|geburtsdatum|geboortedatum|fecha[ ]de[ ]nacimiento|data[ ](?:di[ ]nascita|de[ ]nascimento)"
    r"|n[eé]\u0301?e?_le|born_(?:at|on)|S21\.G00\.30\.006"  # the last in French payrolls (DSN)
    r"|(?-i:(?<=[a-z])(?:D[Oo]B|Birth[dD]ate|Birthday|DateOfBirth|Date(?:De)?Naissance))"
)
_NOUN = rf"{_DAY_OF_BIRTH}|{_BIRTH_OF}"
_BORN = r"n(?:[eé]\u0301?(?:e|\(e\)|·e)?|ee)"
# Words between that belong to another date.
_OTHER = (
    r"(?:admi|after|and|appointment|apr[eè]s|avant|before|by|chang|correct|created|date|embauch|ent[er]|expir|f[eê]te|hired"
    r"|jusqu|not|or|party|re[cç]u|received|rdv|rendez|seen|sent|sign|since|depuis|start|until|updated|valid|visit|vue?\b)"
)
_UP_TO_WORDS = rf"(?:,?[ \u00a0](?!{_OTHER})[^\W\d_][\w’'-]{{0,14}}){{0,6}}"
_PLACE = r"(?:[^.;:!?\d\n]|\([0-9AB]{2,5}\)){0,40}"  # à Brest (29)
_BIRTH = re.compile(
    r"(?:(?<![^\W_])|(?-i:(?<=[a-z])(?=[A-Z])))(?:"
    # née le, né un, né(e) à Brest le, nés tous deux les
    rf"{_BORN}(?:s|\(s\))?[\s\u00a0](?:{_PLACE}[\s\u00a0,])?(?:les?|un)"
    rf"|{_BORN}[\s\u00a0]?(?=:|$)"  # née : 14/07/1982
    r"|(?:naquit|vu[ ]le[ ]jour|venue?s?[ ]au[ ]monde)(?:[\s\u00a0][^.;:!?\d\n]{0,40})?[\s\u00a0]le"
    r"|date[\s_-]?(?:de[\s_-]?)?naissance(?:[\s\u00a0][^.;:!?\d\n]{0,30}|[\s\u00a0]est)?(?:[\s\u00a0]le)?"
    r"|lieu[ ](?:et[ ]date[ ])?de[ ]naissance[ \u00a0]?:[^.;:!?\d\n]{1,40}(?:\([0-9]{2,5}\))?,?(?:[ ]le)?"
    rf"|{_BIRTH_OF}(?:[\s\u00a0]le)?"
    r"|anniv(?:ersaire)?\b(?:[\s\u00a0](?:est|tombe))?(?:[\s\u00a0]le)?"
    r"|(?:anniversaire[\s\u00a0]d(?:e[\s\u00a0]|['’])|birthday[\s\u00a0]of[\s\u00a0])(?-i:[A-ZÀ-Ý])[\w-]{1,30}"
    # born on, born in Leeds on, born; (b. 3/5/2016)
    rf"|born(?:,?[\s\u00a0](?:{_PLACE}[\s\u00a0])?on|[ ](?:in|at)[ ]{_PLACE},)?|(?<=\()b\."
    rf"|(?:{_DAY_OF_BIRTH})(?:/\w{{1,12}})?(?:[\s\u00a0]?\([^()\n]{{1,20}}\))?{_UP_TO_WORDS},?"
    rf")(?:[\s\u00a0](?:an?[\s\u00a0])?(?:{_WEEKDAY}),?)?(?:,?{_S}c['’]est(?:{_S}le)?)?{_IS}$",
    re.I,
)
_BEFORE = 100  # characters in which those words stand
_OWN = r"(?:my|his|her|our|their|the|your|ma|sa|la|ta|notre|leur|votre|mon|son)"
_AFTER = re.compile(
    rf"{_S}?\((?:{_NOUN}|n[eé]e?|born)[\s)]|,{_S}(?:{_NOUN})(?![^\W_])(?![^\n.;]{{0,20}}[:=0-9])"
    rf"|[\"']?{_S}(?:is|was|as|est|était|comme|=){_S}(?:{_OWN}{_S})?(?:\w{{1,15}}['’]s{_S})?(?:{_NOUN})"
    rf"|[\"']\s[^<>\n]{{0,60}}\b(?:name|id)=[\"']?(?:{_NOUN})",
    re.I,
)
_RELATIVE = (
    "mari|femme|[ée]poux|[ée]pouse|conjointe?|compagnon|compagne|fr[èe]re|s(?:œ|oe)ur|fils|fille|p[èe]re|m[èe]re|jum(?:eau|elle)"
    "|husband|wife|spouse|partner|brother|sister|son|daughter|father|mother|twin"
)
_AND = re.compile(  # née le …, et son frère le …
    rf",?{_S}(?:et|and|&){_S}(?:(?:mon|ma|son|sa|le|la|my|his|her|our){_S}(?:{_RELATIVE}){_S}|l['’]autre{_S}|the{_S}other{_S})?"
    rf"(?:the{_S}|le{_S}|on{_S})?",
    re.I,
)
# And what is your date of birth? – the answer opens the next line, after what a chat puts before it.
_OPENS = (
    r"(?:(?:le|the|on|it(?:['’]?s)?|is|c['’]est|oui|yes|yeah|sure|alors|euh|um|uh|well|ok|okay|n[eé]e?|i|was|born|bien|voil[aà]|so"
    r"|du|my|mine|mon|ma|je|suis|d['’]accord|of|course)(?:[,.…!]|[ \u00a0]){1,3}){0,6}"
)
_TO_GIVE = (
    r"\b(?:confirm|enter|give|need|provide|say|state|tell|verify|besoin|communiqu|confirm|donn|envoy|fourni|indiqu|pr[ée]cis"
    r"|rappel|renseign|saisi|transmet|v[ée]rifi)"
)
_SPEAKER = r"(?:[ \t\r]*\n){1,2}(?:[^\n]{0,40}[:>\]–—-][ \u00a0]|>)?[ \t]*"
# State your name and date of birth. – the answer begins with the name.
_CALLED = r"(?-i:(?:[A-ZÀ-Ý][\w’'-]{0,24}[,.;]?(?:[ \u00a0][–—-])?[ \u00a0]){2,6})"
_ANY_CALLED = (
    rf"(?:(?!{_OTHER}|(?:at|de|du|for|from|in|le|on|pour|the|à)\b)[^\W\d_][\w’'-]{{0,24}}[,.;]?[ \u00a0]){{2,4}}"
)
_ASKED = re.compile(
    rf"(?:(?:{_NOUN}|anniversaire|birthday|\bquand[^\n?]{{0,30}}[ ]{_BORN}s?\b|[ ]{_BORN}s?[ ]quand\b"
    rf"|\bwhen[^\n?]{{0,30}}[ ]born\b)[^.;:!?\n\d]{{0,40}}[ \u00a0]?\?"
    rf"|{_TO_GIVE}[^\n?]{{0,60}}[ ](?:{_NOUN})[^.;:!?\n\d]{{0,40}}[ \u00a0]?[.:!]?)"
    rf"{_SPEAKER}(?:{_OPENS}{_CALLED})?{_OPENS}$",
    re.I,
)
_ASKED_WITH_NAME = re.compile(
    rf"(?<![^\W_])(?:names?|noms?|pr[ée]noms?)\b[^\n?]{{0,40}}?[ ](?:{_NOUN})[^.;:!?\n\d]{{0,40}}[ \u00a0]?[?.:!]?"
    rf"{_SPEAKER}{_ANY_CALLED}$",
    re.I,
)
_ASKED_BEFORE = 180  # characters in which the question and the name stand
_SHORTLY = re.compile(r"[,;–—|] b\. $")  # Ben Roy, b. 3/5/2016, but not the second of a list: a. …, b. …
_LISTED = re.compile(r"\ba\. ")
_COLUMN = re.compile(
    rf"(?:[^\W\d_]{{1,15}}[ _-])?(?:{_NOUN}|n[eé]\u0301?(?:e|\(e\)|·e)?[\s\u00a0]le|born(?:[\s\u00a0]on)?)"
    r"(?:[ _-][^\W\d_]{1,15}|[ ]?\([^()]{1,15}\))?",
    re.I,
)

# A form of HTML shows its label, and holds the value in a field with a name.
_FIELD = re.compile(r"<\w{1,20}\s[^<>]{0,80}?\b(?:name|id)=[\"']?(?P<name>[\w-]{1,40})[^<>]{0,80}\bvalue=[\"']?$")
_NAMELESS = re.compile(r"<\w{1,20}\s[^<>]{0,120}\bvalue=[\"']?$")
_TAG = re.compile(r"<[^<>]{0,120}>")
_FORM = 240  # characters of it that are looked at

_NEAR_NIR = 200  # characters between a date and a NIR that begins with its year and month


def birth_dates(text: str) -> Iterator[Match]:
    """`né le 12 mars 1984`, `DOB: 1984-03-12`, `12/03/1984 (naissance)`; day, month and year, since 1900."""
    columns: deque[range] | None = None
    insured: _Insured | None = None
    last = -1  # where the date of birth before this one ends
    for match in _DATE.finditer(text):
        year = next(value for name, value in match.groupdict().items() if name[0] == "y" and value).lstrip("'’")
        if not (len(year) == 2 or _OLDEST <= int(year) < _OLDEST + 200):
            continue
        beside = _says_birth(text, match.start()) or _AFTER.match(text, match.end())
        if not beside and not (last >= 0 and _AND.fullmatch(text, last, match.start())):
            columns = deque(cells(text, _COLUMN)) if columns is None else columns
            while columns and columns[0].stop <= match.start():
                columns.popleft()
            insured = _Insured(text) if insured is None else insured
            if not (columns and match.start() in columns[0]) and not insured.born(match, year):
                continue
        last = match.end()
        yield Match("birth-date", match.start(), last, match[0])


def _says_birth(text: str, at: int) -> bool:
    before = text[max(0, at - _BEFORE) : at]
    if before.endswith(" b. ") and _SHORTLY.search(before) and not _LISTED.search(before):
        return True
    if _BIRTH.search(before):
        return True
    question = text[max(0, at - _ASKED_BEFORE) : at]
    if "\n" in question and (_ASKED.search(question) or _ASKED_WITH_NAME.search(question)):
        return True
    return "<" in before and bool(_BIRTH.search(_shown(text[max(0, at - _FORM) : at])))


def _shown(markup: str) -> str:
    """What a form of HTML says before the value at its end."""
    named = _FIELD.sub(r" \g<name>: ", markup)
    return " ".join(_TAG.sub(" ", _NAMELESS.sub("", named)).split()) + " "


class _Insured:
    """The NIR of a text, each with year and month of birth."""

    def __init__(self, text: str) -> None:
        self._born = [(nir.start, re.sub(r"[^0-9]", "", nir.text)[1:5]) for nir in nirs(text)]

    def born(self, date: re.Match[str], year: str) -> bool:
        """Does one near the date begin with its year and month?"""
        if not self._born or len(year) != 4:
            return False
        months = {f"{year[2:]}{month}" for month in _months(date[0], year)}
        first = bisect_left(self._born, (date.start() - _NEAR_NIR, ""))
        after = bisect_left(self._born, (date.start() + _NEAR_NIR, ""))
        return any(born in months for _, born in self._born[first:after])


def _months(date: str, year: str) -> list[str]:
    """What can be the month of a date in figures, in two of them."""
    rest = date.replace(year, "", 1)
    if rest.isdigit():
        return [rest[:2], rest[2:]]
    return [number.zfill(2) for number in re.findall(r"[0-9]+", rest)]
