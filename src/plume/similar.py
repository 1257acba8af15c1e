"""When two texts count as the same question, and when as nearly the same."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

_SAME = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "«": '"', "»": '"', "…": "."})

NAME = "\1"  # stands before capitals of a folded word inside a sentence
OPENING = "\2"  # the same at the start of a sentence, where a capital need not mean a name
_CAPITALS = re.compile("[" + "".join(c for c in map(chr, range(0x2000)) if c.isupper() or c.istitle()) + "]+")
_ASCII_CAPITALS = re.compile("[A-Z]+")
_BRACKETS = ';"«»“”„()[]{}¿¡_`–—'
_GLUE = "'’‘ʼ‐‑\u00ad\u200b\u2060\ufeff"
_HYPHEN = re.compile(r"-(?!\d)")
_DIGIT_MARKS = {mark: re.compile(rf"\{mark}(?:(?<!\d\{mark})|(?!\d))") for mark in ".,:"}
_ACCENTS = re.compile("[\u0300-\u036f]+")
_DIGIT_GAP = re.compile(r" (?<=\d )(?=\d)")
_DIGIT = re.compile(r"\d")

DIGEST = 8  # bytes
SHORTEST = 8  # letters: in shorter prompts an edit is another question; with two edits, 10 are needed
# Closed-class words, number words and calendar words: two of them are two meanings, however near their spelling.
_COMMON = """
    a about after all an and any are as at be been before but by can could did do does done during each every for
    from give given had has have he her here hers him his how i if in into is it its least less made make many may me
    might mine more most much must my near never no none nor not now of off often on once one only or other our ours
    out over own same say shall she should show since so some such tell than that the their them then there these they
    this those through till to too under until up upon us was we were what when where whether which while who whom
    whose why will with within without would yes yet you your yours
    cannot cant wont isnt arent wasnt werent doesnt didnt hasnt havent hadnt couldnt shouldnt wouldnt nest nai nont
    describe explain list name find write define compare translate
    two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion zero half
    first second third fourth fifth sixth seventh eighth ninth tenth
    monday tuesday wednesday thursday friday saturday sunday january february march april june july august september
    october november december minimum maximum
    au aussi autre aux avant avec avoir ce cela ces cet cette chaque chez combien comment contre dans de depuis des
    donne dont du elle elles en entre es est et etait ete etre eu eux faire fait font il ils je jamais la le les leur
    leurs lui ma mais mes moi moins mon ne ni non nos notre nous ou oui par parmi pas pendant peu peut plus pour
    pourquoi quand que quel quelle quelles quels qui quoi sa sans se sera ses si son sont sous sur ta te tes toi ton
    toujours tous tout toute toutes tres tu un une vers vos votre vous dis decris explique nomme trouve ecris
    deux trois quatre cinq sept huit neuf dix onze douze treize quatorze quinze seize vingt trente quarante cinquante
    soixante cent cents mille zero premier premiere deuxieme troisieme quatrieme cinquieme sixieme septieme huitieme
    lundi mardi mercredi jeudi vendredi samedi dimanche janvier fevrier mars avril mai juin juillet aout septembre
    octobre novembre decembre
"""
COMMON = frozenset(_COMMON.split())


def normalise(text: str) -> str:
    """Fold what people vary without meaning to: case, spacing, typographic quotes, final punctuation, NFC/NFD.

    Nothing that may carry meaning is folded: accents (`cote`, `côte`), symbols (`C`, `C++`), digits.
    """
    folded = unicodedata.normalize("NFC", text).casefold().translate(_SAME)
    words = " ".join(folded.split())
    for mark in "?!:;":
        words = words.replace(f" {mark}", mark)
    return words.rstrip(" .?!") or words


def normalise_all(texts: Sequence[str]) -> list[str]:
    """`normalise` of each text, several times faster: the texts are folded as one."""
    joined = "\0".join(texts)
    if not texts or joined.count("\0") != len(texts) - 1:
        return [normalise(text) for text in texts]
    joined = unicodedata.normalize("NFC", joined).casefold()
    if not joined.isascii():
        for old, new in _SAME.items():
            joined = joined.replace(chr(old), str(new))
    joined = _tidy(" ".join(joined.split()))
    for mark in "?!:;":
        joined = joined.replace(f" {mark}", mark)
    return [words.rstrip(" .?!") or words for words in joined.split("\0")]


def digest(text: str) -> bytes:
    """8 bytes that stand for a text: among ten million texts two share them with probability 3e-6."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()[:DIGEST]


def fold_all(texts: Sequence[str]) -> list[str]:
    """The words of each text without case, accents or punctuation, one space apart.

    Symbols (`C++`, `%`, `#`), digits and what joins digits (`1.5`, `10:30`, `-5`) stay; apostrophes and hyphens go
    without a gap. `NAME` stands before what were capitals, `OPENING` before those that opened a sentence.
    """
    if not texts:
        return []
    joined = "\0".join(texts).replace(NAME, " ").replace(OPENING, " ")
    if joined.count("\0") != len(texts) - 1:
        joined = "\0".join(text.replace("\0", " ") for text in texts).replace(NAME, " ").replace(OPENING, " ")
    ascii_only = joined.isascii()
    joined = joined if ascii_only else unicodedata.normalize("NFC", joined)
    joined = _replace(_replace(joined, _BRACKETS, " "), _GLUE, "")
    joined = "\0" + _tidy(" ".join(_HYPHEN.sub("", joined).split()))
    joined = (_ASCII_CAPITALS if ascii_only else _CAPITALS).sub(lambda found: NAME + found[0], joined)
    for mark in ("\0", ". ", "! ", "? ", "… ", ": "):
        joined = joined.replace(mark + NAME, mark + OPENING)
    joined = joined.casefold()
    if not ascii_only:
        joined = _ACCENTS.sub("", unicodedata.normalize("NFD", joined)).casefold()
        joined = unicodedata.normalize("NFC", joined).replace("œ", "oe").replace("æ", "ae")
    joined = _replace(joined, "!?…", " ")
    for mark, pattern in _DIGIT_MARKS.items():
        joined = pattern.sub(" ", joined) if mark in joined else joined
    while "  " in joined:
        joined = joined.replace("  ", " ")
    return _tidy(joined)[1:].rstrip(" ").split("\0")


def fold(text: str) -> str:
    """`fold_all` of one text."""
    return fold_all([text])[0]


def letters_all(folded: Sequence[str]) -> list[str]:
    """What is left of folded texts without gaps and marks; a gap between two digits stays."""
    joined = "\0".join(folded).replace(NAME, "").replace(OPENING, "")
    return _DIGIT_GAP.sub("\3", joined).replace(" ", "").split("\0") if folded else []


def alike(first: str, second: str) -> bool:
    """Whether two folded texts (see `fold_all`) say the same but for a slip of the pen.

    They do when their letters are the same, or when they have as many words, these differ in one or two places, by
    at most 2 edits (Levenshtein) in all, the shorter has 8 letters for one edit or 10 for two, and every word that
    differs is a slip (`slip`). Texts that differ in a number or in a name are never alike.
    """
    letters = letters_all([first, second])
    if letters[0] == letters[1]:
        return bool(letters[0])
    words, others = first.split(" "), second.split(" ")
    if len(words) != len(others):
        return False
    different = [(word, other) for word, other in zip(words, others, strict=True) if bare(word) != bare(other)]
    if len(different) > 2:
        return False
    edits = [slip(word, other) for word, other in different]
    return all(edits) and sum(edits) <= 2 and min(map(len, letters)) >= SHORTEST + 2 * (sum(edits) - 1)


@functools.lru_cache(maxsize=1 << 16)
def slip(word: str, other: str) -> int:
    """The number of edits, 1 or 2, by which one word may be the other mistyped; 0 when they are different words.

    Words with a digit or a capital inside a sentence are always different. Slips are
    - two neighbouring letters swapped, unless a capital opens a sentence with a word that is not common;
    - one edit in a common word (`wher`, `te`), at the start of a sentence not in its first letter and not down to
      fewer than three letters;
    - one edit in a word of four letters or more, two in one of six or more, the first letter being the same
      (`legal` and `illegal` are different), and no capital opening a sentence, for that may be a name.
    Save for swapped letters, two common words are different (`when`, `where`; `six`, `seize`; `is`, `isnt`).
    """
    if NAME in word + other or _DIGIT.search(word) or _DIGIT.search(other):
        return 0
    opening = OPENING in word + other
    word, other = bare(word), bare(other)
    common = (word in COMMON) + (other in COMMON)
    edits = edit_distance(word, other)
    if edits > 2 or (opening and not common):
        return 0
    if _swapped(word, other):
        return 2
    if common == 2:
        return 0
    shorter, same_start = min(len(word), len(other)), word[:1] == other[:1]
    if common and edits == 1 and shorter >= (3 if opening else 2) and (same_start or not opening):
        return 1
    return edits if same_start and shorter >= (4 if edits == 1 else 6) else 0


def edit_distance(word: str, other: str) -> int:
    """Levenshtein's distance, 3 when it is more than 2."""
    return int(_levenshtein()(word, other, score_cutoff=2))


def bare(word: str) -> str:
    """A folded word without its marks."""
    return word.replace(NAME, "").replace(OPENING, "")


def _swapped(word: str, other: str) -> bool:
    at = [place for place, (one, two) in enumerate(zip(word, other, strict=False)) if one != two]
    return (
        len(word) == len(other)
        and len(at) == 2
        and at[1] == at[0] + 1
        and word[at[0]] == other[at[1]]
        and word[at[1]] == other[at[0]]
    )


@functools.cache
def _levenshtein() -> Callable[..., Any]:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance


def _tidy(joined: str) -> str:
    return joined.replace(" \0", "\0").replace("\0 ", "\0")


def _replace(joined: str, marks: str, by: str) -> str:
    for mark in marks:
        if mark in joined:
            joined = joined.replace(mark, by)
    return joined
