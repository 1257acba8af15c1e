"""Dates of birth: a whole date beside words that say whose it is, or in a column that does. Any other is nobody's."""

from __future__ import annotations

import re
from collections import deque
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
    rf"|[0-9]{{1,2}}(?P<m>[./-])(?:{_ENGLISH}|{_FRENCH})(?P=m)(?P<y8>[0-9]{{4}})"
    rf"|[0-9]{{1,2}}{_S}[0-9]{{1,2}}{_S}(?P<y3>[0-9]{{4}})"
    rf"|(?:[0-9]{{1,2}}|1{_S}?er){_S}(?:{_FRENCH})\.?{_S}(?P<y4>[0-9]{{4}})"
    rf"|(?:the{_S})?[0-9]{{1,2}}(?:st|nd|rd|th)?(?:{_S}of)?{_S}(?:{_ENGLISH})\.?,?{_S}(?P<y5>[0-9]{{4}})"
    rf"|(?:{_ENGLISH})\.?{_S}[0-9]{{1,2}}(?:st|nd|rd|th)?,?{_S}(?P<y6>[0-9]{{4}})"
    r"|(?P<y7>[0-9]{4})(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r")(?![\w]|[./-][0-9])",
    re.I,
)
_IS = r"[\"'”»*]{0,3}[\s\u00a0:=–—-]{0,4}[\"'“«*]{0,3}[\s\u00a0]?"
_WEEKDAY = (
    r"(?:lun|mar|mercre|jeu|vendre|same)di|dimanche|(?:mon|tues|wednes|thurs|fri|satur|sun)day"  # né un mardi, 3 mars
)
_NOUN = (
    r"date[\s_-]?(?:de[\s_-]?)?naiss(?:ance\b|\b\.?)|naissance|ddn|bday|birth[\s_-]?(?:date|day)"
    r"|date[\s_-]?of[\s_-]?birth|d\.?o\.?b\b\.?|n[eé]\u0301?e?_le"
)
_BIRTH = re.compile(
    r"(?<![^\W_])(?:"
    # née le, né un, né(e) à Brest le, nés tous deux les
    r"n(?:[eé]\u0301?(?:e|\(e\)|·e)?|ee)(?:s|\(s\))?[\s\u00a0](?:[^.;:!?\d\n]{0,40}[\s\u00a0,])?(?:les?|un)"
    r"|n(?:[eé]\u0301?(?:e|\(e\)|·e)?|ee)[\s\u00a0]?(?=:)"  # née : 14/07/1982
    r"|date[\s_-]?(?:de[\s_-]?)?naissance(?:[\s\u00a0][^.;:!?\d\n]{0,30}|[\s\u00a0]est)?(?:[\s\u00a0]le)?"
    r"|naissance(?:[\s\u00a0]le)?|anniversaire(?:[\s\u00a0](?:est|tombe))?(?:[\s\u00a0]le)?"
    r"|(?:anniversaire[\s\u00a0]d(?:e[\s\u00a0]|['’])|birthday[\s\u00a0]of[\s\u00a0])(?-i:[A-ZÀ-Ý])[\w-]{1,30}"
    # born on, born in Leeds on, born; (b. 3/5/2016)
    r"|born(?:[\s\u00a0](?:[^.;:!?\d\n]{0,40}[\s\u00a0])?on)?|(?<=\()b\."
    rf"|(?:{_NOUN})(?:[\s\u00a0]?\([^()\n]{{1,20}}\))?,?(?:[\s\u00a0](?:is|was|on)){{0,2}}"
    rf")(?:[\s\u00a0](?:an?[\s\u00a0])?(?:{_WEEKDAY}),?)?(?:,?{_S}c['’]est(?:{_S}le)?)?{_IS}$",
    re.I,
)
_BEFORE = 90  # characters in which those words stand
_AFTER = re.compile(rf"{_S}?\((?:{_NOUN}|n[eé]e?|born)[\s)]|,{_S}(?:{_NOUN})(?![^\W_])(?![^\n.;]{{0,20}}[:=0-9])", re.I)
_RELATIVE = (
    "mari|femme|[ée]poux|[ée]pouse|conjointe?|compagnon|compagne|fr[èe]re|s(?:œ|oe)ur|fils|fille|p[èe]re|m[èe]re|jum(?:eau|elle)"
    "|husband|wife|spouse|partner|brother|sister|son|daughter|father|mother|twin"
)
_AND = re.compile(  # née le …, et son frère le …
    rf",?{_S}(?:et|and|&){_S}(?:(?:mon|ma|son|sa|le|la|my|his|her|our){_S}(?:{_RELATIVE}){_S})?(?:the{_S}|le{_S}|on{_S})?",
    re.I,
)
# And what is your date of birth? – the answer opens the next line, after what a chat puts before it.
_ASKED = re.compile(
    rf"(?:{_NOUN})[^.;:!?\n\d]{{0,30}}[ \u00a0]?\?[ \t\r]*\n(?:[^\n]{{0,40}}[:>\]][ \u00a0])?[ \t]*$", re.I
)
_SHORTLY = re.compile(r"[,;–—|] b\. $")  # Ben Roy, b. 3/5/2016, but not the second of a list: a. …, b. …
_LISTED = re.compile(r"\ba\. ")
_COLUMN = re.compile(rf"{_NOUN}|n[eé]\u0301?(?:e|\(e\)|·e)?[\s\u00a0]le|born(?:[\s\u00a0]on)?", re.I)
_DELIMITERS = "\t;|,"
_INSERT = re.compile(r"\binsert\s{1,9}into\s{1,9}[^\s(]{1,80}\s{0,9}\((?P<columns>[^()]{1,400})\)\s{0,9}values", re.I)
_ROW = re.compile(r"\s{0,9},?\s{0,9}\((?P<row>(?:[^()']|'[^']{0,400}+'){1,400}+)\)")
_CELL = re.compile(r"(?:[^,']|'[^']{0,400}+')++")


def birth_dates(text: str) -> Iterator[Match]:
    """`né le 12 mars 1984`, `DOB: 1984-03-12`, `12/03/1984 (naissance)`; day, month and year, since 1900."""
    columns: deque[range] | None = None
    last = -1  # where the date of birth before this one ends
    for match in _DATE.finditer(text):
        year = next(year for year in match.group("y1", "y2", "y3", "y4", "y5", "y6", "y7", "y8") if year)
        if not (len(year) == 2 or _OLDEST <= int(year) < _OLDEST + 200):
            continue
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        beside = _says_birth(before) or _AFTER.match(text, match.end())
        if not beside and not (last >= 0 and _AND.fullmatch(text, last, match.start())):
            columns = _columns(text) if columns is None else columns
            while columns and columns[0].stop <= match.start():
                columns.popleft()
            if not columns or match.start() not in columns[0]:
                continue
        last = match.end()
        yield Match("birth-date", match.start(), last, match[0])


def _says_birth(before: str) -> bool:
    if before.endswith(" b. ") and _SHORTLY.search(before) and not _LISTED.search(before):
        return True
    return bool(_BIRTH.search(before) or ("?" in before and _ASKED.search(before)))


def _columns(text: str) -> deque[range]:
    """Where the cells of tables stand whose column says date of birth in its first row, in order."""
    if not _COLUMN.search(text):
        return deque()
    return deque(sorted([*_inserted(text), *_lined_up(text)], key=lambda cell: cell.start))


def _inserted(text: str) -> Iterator[range]:
    """Cells of SQL's `INSERT INTO people (name, dob) VALUES ('Blin', '1983-12-04'), …`."""
    for insert in _INSERT.finditer(text):
        names = [name.strip(' \t\r\n"`[]') for name in insert["columns"].split(",")]
        wanted = next((number for number, name in enumerate(names) if _COLUMN.fullmatch(name)), -1)
        at = insert.end()
        while wanted >= 0 and (row := _ROW.match(text, at)):
            at = row.end()
            cells = list(_CELL.finditer(text, *row.span("row")))
            if len(cells) == len(names):
                yield range(*cells[wanted].span())


def _lined_up(text: str) -> list[range]:
    """Cells of lines with the same number of the same delimiter, as in CSV or Markdown."""
    cells = list[range]()
    delimiter, width, wanted = "", 0, -1
    at = 0
    for line in text.split("\n"):
        row = line.split(delimiter) if delimiter else []
        if len(row) != width or width == 0:
            delimiter, wanted = _heading(line)
            width = line.count(delimiter) + 1 if delimiter else 0
        else:
            start = at + sum(len(cell) + 1 for cell in row[:wanted])
            cells.append(range(start, start + len(row[wanted])))
        at += len(line) + 1
    return cells


def _heading(line: str) -> tuple[str, int]:
    """The delimiter of a first row and the number of its column of dates of birth; ("", -1) for any other line."""
    if _COLUMN.search(line):
        for delimiter in _DELIMITERS:
            for number, cell in enumerate(line.split(delimiter)) if delimiter in line else ():
                if _COLUMN.fullmatch(cell.strip(" \t\r\"'*")):
                    return delimiter, number
    return "", -1
