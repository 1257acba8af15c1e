"""D108 and D109: markup and blanks that were left in. Rows that speak of markup or hold code are not accused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

from plume.checks.rules import Asked, Batch, survey
from plume.checks.tally import Tally
from plume.types import Finding

# --- D108 ----------------------------------------------------------------------------------------

_ENTITY = re.compile(
    r"&(?:quot|amp|lt|gt|nbsp|apos|laquo|raquo|[lr]squo|[lr]dquo|hellip|ndash|mdash|euro|oelig|ccedil|ntilde|szlig"
    r"|[aeiouyAEIOUY](?:acute|grave|circ|uml|tilde)|Ccedil|OElig|(?<![=(,] &)(?:copy|reg|deg)"
    r"|#\d{2,6}|#x[0-9a-fA-F]{2,5});"
)
_TAG_NAMES = (
    "p|br|hr|div|span|em|strong|ul|ol|li|table|thead|tbody|tr|td|th|h[1-6]|img|html|body|head|pre|code|sup|sub|font"
    "|center|blockquote|section|article|nav|header|footer|script|style|a|b|i|u"
)
_TAG = re.compile(
    rf"</?({_TAG_NAMES})(?:\s+[\w:-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+))*\s*/?>", re.IGNORECASE
)
_NEED_NO_END = frozenset(("p", "br", "hr", "img", "li", "tr", "th", "td"))  # <script> alone is an argument
_RAISED = re.compile(r"<(su[bp])>[^<>\s]{1,8}</\1>", re.IGNORECASE)
_TABLE_ROW = re.compile(r"^\s*\|.*\|\s*$", re.MULTILINE)
_FENCE = re.compile(r"\s*```[ \t]*([\w+#-]*)[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_ESCAPE = re.compile(r"\\[_%&#]")
_LATEX = re.compile(r"\$[^$]+\$|\\[a-zA-Z(\[{]|[A-Za-z]:\\", re.DOTALL)
_ABOUT_MARKUP = re.compile(
    r"(?<![./])\b(?:x?html5?|xml|svg|jsx|css|entit(?:y|ies|és?)|balises?|tags?|markdown|markup|latex|tex|regex|regexp|sed|bash"
    r"|web ?page|page web|site web|website)\b",
    re.IGNORECASE,
)
_ABOUT_CODE = re.compile(
    r"\b(?:code|coder|program(?:me|mes|mer|s)?|programming|function|fonction|script|python|javascript|typescript|java|sql"
    r"|rust|golang|bash|shell|command|commande|regex|class|classe|algorithm|algorithme|implement|snippet|c\+\+|html|css"
    r"|docker\w*|template|jinja\w*|latex)(?!\w)",
    re.IGNORECASE,
)
_LOOKS_CODE = re.compile(
    r"```|`[^`\n]+`|\bf[\"']|\.format\(|\bprint\(|^\s*(?:import|from|def|class|const|let|var|function|public|return|#include)\b"
    r"|=>|;\s*$|\{%|</\w+>|\\begin\{|\$\{",
    re.MULTILINE,
)


def _entity(asked: Asked) -> str | None:
    return _first(_ENTITY, asked)


def _tag(asked: Asked) -> str | None:
    """A tag; not the indices of chemistry and mathematics or a line break in a table: Markdown has no other way."""
    if _ABOUT_MARKUP.search(asked.prompt) or _ABOUT_MARKUP.search(asked.completion):
        return None
    for match in _TAG.finditer(_RAISED.sub("", asked.completion)):
        name, found = match[1].lower(), match.group()
        lone = not (name in _NEED_NO_END or "=" in found or f"</{name}>" in asked.completion.lower())
        if not lone and not (name == "br" and _TABLE_ROW.search(asked.completion)):
            return found
    return None


def _fence(asked: Asked) -> str | None:
    """A fence round the whole reply, unless code was asked for."""
    whole = _FENCE.fullmatch(asked.completion)
    return "```" + whole[1] if whole and not _ABOUT_CODE.search(asked.prompt) else None


def _open_fence(asked: Asked) -> str | None:
    return "```" if asked.completion.count("```") % 2 and not _ABOUT_MARKUP.search(asked.prompt) else None


def _escape(asked: Asked) -> str | None:
    if _LATEX.search(asked.completion) or _ABOUT_CODE.search(asked.prompt):
        return None
    return _first(_ESCAPE, asked)


def _first(pattern: re.Pattern[str], asked: Asked) -> str | None:
    match = pattern.search(asked.completion) or pattern.search(asked.prompt)
    if match is None or _ABOUT_MARKUP.search(asked.prompt) or _ABOUT_MARKUP.search(asked.completion):
        return None
    return match.group()


_MARKUP = {
    "entity": ("&", _entity, "the HTML entity {} was left in", "write the character itself"),
    "tag": ("<", _tag, "the HTML tag {} was left in", "remove the tags; where one broke the line, break it"),
    "fence": ("```", _fence, "a Markdown fence ({}) stands round the whole answer", "keep what it encloses"),
    "open": ("```", _open_fence, "a Markdown fence ({}) is opened and never closed", "close it, or remove it"),
    "escape": ("\\", _escape, "the escape {} was left in", "write the character without its backslash"),
}
_SUBJECT = ("tag", "fence")  # when most replies have them, they are what the model is to write


@survey("D108")
@dataclass
class Markup:
    """HTML, Markdown and LaTeX that a conversion left behind."""

    replies: int = 0
    holding: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUBJECT, 0))
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in _MARKUP})

    def see(self, batch: Batch) -> None:
        self.replies += len(batch.asked)
        text = batch.text
        for name, (sign, find, said, hint) in _MARKUP.items():
            if sign[0] not in text or sign not in text:
                continue
            for asked in batch.asked:
                if (name == "tag" and _TAG.search(asked.completion)) or (name == "fence" and sign in asked.completion):
                    self.holding[name] += 1
                elif name in _SUBJECT or not (sign in asked.completion or sign in asked.prompt):
                    continue
                found = find(asked)
                if found:
                    source = asked.example.source
                    self.tallies[name].add(Finding("D108", "warning", source, said.format(found), hint, quote=found))

    def merge(self, later: Self) -> None:
        self.replies += later.replies
        for name, count in later.holding.items():
            self.holding[name] += count
        for name, tally in later.tallies.items():
            self.tallies[name].merge(tally)

    def findings(self) -> Iterator[Finding]:
        for name, tally in self.tallies.items():
            subject = self.replies > 2 and 2 * self.holding.get(name, 0) > self.replies
            if not subject:
                yield from tally.findings(self.replies)


# --- D109 ----------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FIELDS = _words(
    "nom prénom prenom name firstname lastname surname fullname email mail courriel adresse address phone tel "
    "tél telephone téléphone numéro numero number date heure time ville city pays country entreprise société "
    "societe company organisation organization person personne location lieu place url lien link ip iban "
    "montant amount prix price produit product titre title age âge ssn id user username utilisateur client "
    "customer placeholder redacted masqué censuré sujet topic question answer réponse reponse input output "
    "context contexte text texte xxx todo tbd compléter completer key"
)
_BETWEEN = _words("du de d la le l des of the to à a first last full birth naissance")
_ARTICLES = _words("the a an le la l les un une his her their son sa ses")
_ASKING = _words("your votre vos ton ta insert insérer inserer indiquer saisir remplir compléter fill enter")
_BRACKET = re.compile(r"\[([^\W\d_][\w’' /-]{1,40})\](?![(\[\]])")
_DOUBLE = re.compile(r"\{\{ ?([^\W\d][\w.]{0,40}) ?\}\}")
_SINGLE = re.compile(r"\{([^\W\d][\w ]{1,30})\}")
_ANGLE = re.compile(r"<([^\W\d_][\w’' -]{1,40})>")
_CROSSES = re.compile(r"\bX{3,}\b")
_NUMERAL = re.compile(
    r"\b(?:bowl|wrestlemania|louis|pope|pape|king|roi|chapter|chapitre|tome|books?|livres?|vol(?:ume)?\.?|part(?:ie)?|acte?"
    r"|psalm|psaume|canto|chant|title|titre|annexe?|article|section|olympi\w+|legion?|légion)\s+$",
    re.IGNORECASE,
)
_ROMAN = re.compile(r"(?i:\b(?:roman|romains?|film|movie)\b)|\b(?=[IVXLC]{2,}\b)(?!X{3,}\b)X*(?:I[XV]|V?I{0,3})\b")
_TO_DO = re.compile(r"\bTODO\b(?=\s*(?::|\]|\)|$))", re.MULTILINE)
_ABOUT_SYNTAX = re.compile(
    r"\b(?:jinja2?|templates?|gabarit|syntax|syntaxe|html|xml|jsx|vue|sql|latex)\b", re.IGNORECASE
)
_LOREM = re.compile(r"lorem ipsum", re.IGNORECASE)
_ABOUT_LOREM = re.compile(r"faux[- ]texte|filler|placeholder|dummy|typogra|cicer", re.IGNORECASE)
_LINE = re.compile(r"(?<!_)_{3,}(?!_)")


def _is_field(inner: str, *, capitals: bool) -> bool:
    words = re.sub(r"[\s\d_’'/-]+", " ", re.sub(r"(?i)\be-mail", "email", inner)).casefold().split()
    if not words or words[0] in _ARTICLES:  # [the mayor]: an editor's word
        return False
    if words[0] in _ASKING:
        return len(words) > 1
    if inner.isupper():
        return len(words) <= 5 and not _FIELDS.isdisjoint(words)
    return not capitals and not _FIELDS.isdisjoint(words) and _FIELDS.union(_BETWEEN).issuperset(words)


def _bracket(text: str) -> str | None:
    for match in _BRACKET.finditer(text):
        before = text[: match.start()][-2:]
        code = before[-1:].isalnum() or before[-1:] in tuple(")]=_(") or before == "= "
        listed = before == ", " and text.rfind("(", 0, match.start()) > text.rfind(")", 0, match.start())
        if not code and not listed and _is_field(match[1], capitals=False):
            return match.group()
    return None


def _brace(text: str) -> str | None:
    double = _DOUBLE.search(text)
    if double:
        return double.group()
    for match in _SINGLE.finditer(text):
        before = text[: match.start()][-2:]
        code = before[-1:].isalnum() or before[-1:] in tuple("$\\{}^_/") or before == "= "
        if not code and _is_field(match[1], capitals=False):
            return match.group()
    return None


def _angle(text: str) -> str | None:
    for match in _ANGLE.finditer(text):
        before = text[match.start() - 1 : match.start()]
        if not before.isalnum() and _is_field(match[1], capitals=True):
            return match.group()
    return None


def _crosses(text: str) -> str | None:
    for match in _CROSSES.finditer(text):
        if len(match.group()) > 3 or not (_NUMERAL.search(text[: match.start()]) or _ROMAN.search(text)):
            return match.group()
    return None


def _to_do(text: str) -> str | None:
    match = _TO_DO.search(text)
    return match.group() if match else None


def _lorem(text: str) -> str | None:
    match = _LOREM.search(text)
    return match.group() if match and not _ABOUT_LOREM.search(text) else None


def _rule_to_fill(text: str) -> str | None:
    for match in _LINE.finditer(text):
        line = text[text.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0]
        if line.strip(" _"):
            return match.group()
    return None


def _is_syntax(found: str, asked: Asked) -> bool:
    """Is what looks like a blank what the row is about: code, a template, a query?"""
    if found.isupper() and found[0] == "[":
        return False
    return bool(_ABOUT_CODE.search(asked.prompt) or _ABOUT_SYNTAX.search(asked.completion))


_BLANKS = (
    ("[", _bracket),
    ("{", _brace),
    ("<", _angle),
    ("XXX", _crosses),
    ("TODO", _to_do),
    ("orem ips", _lorem),
    ("___", _rule_to_fill),
)


@survey("D109")
@dataclass
class Placeholders:
    """Blanks of a form letter that nobody filled in."""

    replies: int = 0
    tally: Tally = field(default_factory=Tally)

    def see(self, batch: Batch) -> None:
        self.replies += len(batch.asked)
        text = batch.text
        for sign, find in _BLANKS:
            if sign[0] in text and sign in text and (sign not in "[{<" or find(text)):
                for asked in batch.asked:
                    self._look(asked, sign, find)

    def _look(self, asked: Asked, sign: str, find: Callable[[str], str | None]) -> None:
        for text in (asked.completion, asked.prompt):
            if sign not in text or (sign == "___" and text is asked.prompt):  # a gap to fill is a fair question
                continue
            found = find(text)
            if not found or _LOOKS_CODE.search(text) or (sign in "[{<" and _is_syntax(found, asked)):
                continue
            if sign == "XXX" and len(found) == 3 and _ROMAN.search(asked.prompt):
                continue
            message = f"the placeholder {found} was left in: the model would learn to write or expect it"
            hint = "fill it in, or drop the row"
            self.tally.add(Finding("D109", "warning", asked.example.source, message, hint, quote=found))
            return

    def merge(self, later: Self) -> None:
        self.replies += later.replies
        self.tally.merge(later.tally)

    def findings(self) -> Iterator[Finding]:
        yield from self.tally.findings(self.replies)
