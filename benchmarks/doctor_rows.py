"""A large file of invented questions and answers, as people make them from records: French and English, prose and JSON.

Two thirds of the answers are two to four sentences, one third are JSON objects of four shapes. One row in a
thousand repeats an earlier one, one repeats it with a slip of the pen, one contradicts it; one in 20,000 has an
e-mail address. The same seed and number of rows give the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

FAULTY = 0.001  # share of rows of each kind of fault
WITH_ADDRESS = 0.00005
_RECENT = 2000  # rows that a fault may go back to

Row = tuple[str, str]
Pick = Callable[[list[str]], str]


def _listed(text: str) -> list[str]:
    return text.split(",")


_NAMES = _listed("Anaïs,Léo,Chloé,Noël,Zoé,René,Inès,Hélène,Gaël,Maëlle,John,Mary,Peter,Alice,Oscar,Ruth,Hugh,Edith")
_SURNAMES = _listed(
    "Kervella,Lefèvre,Morvan,Guéguen,Bélanger,Crépin,Dubois,Roussel,Maréchal,Abgrall,Tanguy,Whitlock,"
    "Pemberton,Ashdown,Carrick,Farrow,Hollis,Marlowe,Thorne,Underhill,Wexford,Le Goff"
)
_PLACES = _listed(
    "Kerlouan,Plouzané,Saint-Brévin,Roscoff,Guérande,Locronan,Étretat,Honfleur,Batz,Sauzon,Pénestin,"
    "Erquy,Cancale,Dinéault,Camaret,Logonna,Névez,Moëlan,Whitby,Tenby,Padstow,Seaton,Aldeburgh,"
    "Cromer,Beaumaris,Portree,Lyme,Deal,Southwold,Mevagissey,Polperro,Staithes,Robin-Hood,Craster,"
    "Bamburgh,Amble"
)
_THINGS_FR = _listed(
    "le phare,la chapelle,l’écluse,le moulin à marée,la forge,le marché couvert,la criée,le sémaphore,"
    "la digue,le lavoir,la cale de mise à l’eau,le fort,l’ancienne gare,le manoir,la conserverie,"
    "le pont tournant,l’école,la bibliothèque,le musée de la pêche,le jardin botanique,la tour de guet,"
    "le four à chaux,l’abri du canot,la corderie,le cimetière marin,la halle aux grains,l’hôtel des douanes,"
    "le viaduc,la fontaine,le calvaire"
)
_THINGS_EN = _listed(
    "the lighthouse,the chapel,the lock,the tide mill,the forge,the covered market,the fish hall,"
    "the signal station,the sea wall,the wash house,the slipway,the fort,the old station,the manor,"
    "the cannery,the swing bridge,the school,the library,the fishing museum,the botanical garden,"
    "the watchtower,the lime kiln,the lifeboat shed,the rope walk,the harbour office,the corn exchange,"
    "the customs house,the viaduct,the fountain,the cross"
)
_WITH_FR = _listed(
    "de granit,aux volets bleus,à six étages,du dix-septième siècle,au bord de la rivière,près de l’église,"
    "en brique,derrière les dunes,sur la falaise,au bout de la jetée,sous les châtaigniers,"
    "de la rive gauche,à l’entrée du port"
)
_WITH_EN = _listed(
    "of grey granite,with blue shutters,of six floors,of the seventeenth century,by the river,"
    "near the church,of red brick,behind the dunes,on the cliff,at the end of the pier,under the chestnuts,"
    "on the left bank"
)
_MONTHS_FR = _listed("janvier,février,mars,avril,mai,juin,juillet,août,septembre,octobre,novembre,décembre")
_MONTHS_EN = _listed("January,February,March,April,May,June,July,August,September,October,November,December")
_ASK_FR = [
    "Qui a construit @ ?", "Quand a-t-on rénové @ ?", "Combien a coûté la réparation pour @ ?",
    "Que visite-t-on dans @ ?", "Pourquoi a-t-on fermé @ ?", "Comment entretient-on @ ?", "À quoi servait @ ?",
    "Depuis quand connaît-on @ ?", "Dans quel état se trouvait @ ?", "Qui surveillait @ ?",
    "Peux-tu me dire qui a peint @ ?", "Que raconte-t-on sur @ ?", "Où trouver des photographies montrant @ ?",
    "Combien de visiteurs ont vu @ ?", "Explique en quelques mots l’histoire : @.",
]  # fmt: skip
_ASK_EN = [
    "Who built @?", "When was the roof repaired at @?", "How much did the town pay for @?", "What can be seen at @?",
    "Why did they close @?", "How do volunteers look after @?", "What was the purpose of @?",
    "Since when do we know @?", "In what state was @?", "Who kept watch over @?", "Could you tell me who painted @?",
    "What do people say about @?", "Where are there photographs of @?", "How many visitors came to @?",
    "Tell me in a few words about @.",
]  # fmt: skip
_SAY_FR = [
    "D’après les archives, {name} a dirigé les travaux à {place} pendant {n} mois.",
    "Le toit a été refait en {year}, puis les murs ont été rejointoyés à la chaux.",
    "On y compte environ {n} visiteurs par semaine, surtout l’été.",
    "La commune de {place} l’a racheté {n} 000 francs à la famille {surname}.",
    "Une tempête l’a endommagé le {date} ; il a fallu attendre {year} pour le voir rouvert.",
    "« C’était notre repère », écrivait {name} dans son journal.",
    "Les pierres viennent d’une carrière située à {n} kilomètres, près de {place}.",
    "Aujourd’hui, une association de {n} bénévoles s’en occupe chaque samedi.",
    "Il n’en reste que la façade, classée depuis {year}.",
    "Les plans d’origine, signés {name}, sont conservés à {place}.",
]
_SAY_EN = [
    "According to the records, {name} led the work at {place} for {n} months.",
    "The roof was replaced in {year}, and the walls were then repointed with lime.",
    "It receives about {n} visitors a week, most of them in summer.",
    "The parish of {place} bought it back for {n} pounds from the {surname} family.",
    "A storm damaged it on {date}, and it stayed shut until {year}.",
    "“It was our landmark,” wrote {name} in a diary.",
    "The stone comes from a quarry {n} miles away, close to {place}.",
    "Today a group of {n} volunteers looks after it every Saturday.",
    "Only the front is left, and it has been protected since {year}.",
    "The first drawings, signed by {name}, are kept in {place}.",
]
_TAGS = _listed("port,pêche,granit,marée,été,musée,harbour,fishing,granite,tide,summer,museum")


def write_rows(path: Path, rows: int, seed: int = 1) -> None:
    """Write the file, in about 20 seconds a million rows."""
    with path.open("w", encoding="utf-8") as stream:
        for prompt, completion in _rows(rows, random.Random(seed)):
            stream.write(json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) + "\n")


def _rows(count: int, rng: random.Random) -> Iterator[Row]:
    def pick(words: list[str]) -> str:
        return words[int(rng.random() * len(words))]

    recent: list[Row] = []
    for _ in range(count):
        chance = rng.random()
        if chance < 3 * FAULTY and recent:
            prompt, completion = recent[int(rng.random() * len(recent))]
            if chance < FAULTY:
                yield prompt, completion
            elif chance < 2 * FAULTY:
                yield _slipped(prompt, rng), completion
            else:
                yield prompt, _prose(rng, pick, chance < 2.5 * FAULTY)
            continue
        french = rng.random() < 0.5
        if rng.random() < 1 / 3:
            row = _subject(rng, pick, french), _fields(rng, pick, french)
        else:
            row = (
                pick(_ASK_FR if french else _ASK_EN).replace("@", _subject(rng, pick, french)),
                _prose(rng, pick, french),
            )
        if rng.random() < WITH_ADDRESS:
            row = row[0], f"{row[1]} {_contact(rng, pick)}"
        if len(recent) < _RECENT:
            recent.append(row)
        else:
            recent[int(rng.random() * _RECENT)] = row
        yield row


def _subject(rng: random.Random, pick: Pick, french: bool) -> str:
    if french:
        return f"{pick(_THINGS_FR)} {pick(_WITH_FR)}, à {pick(_PLACES)}, vu par {_name(pick)} le {_date(rng, True)}"
    return f"{pick(_THINGS_EN)} {pick(_WITH_EN)} in {pick(_PLACES)}, as {_name(pick)} saw it on {_date(rng, False)}"


def _prose(rng: random.Random, pick: Pick, french: bool) -> str:
    says = rng.sample(_SAY_FR if french else _SAY_EN, 2 + int(rng.random() * 3))
    return " ".join(says).format(
        name=_name(pick), surname=pick(_SURNAMES), place=pick(_PLACES), n=2 + int(rng.random() * 900),
        year=1700 + int(rng.random() * 320), date=_date(rng, french),
    )  # fmt: skip


def _fields(rng: random.Random, pick: Pick, french: bool) -> str:
    year, height = 1700 + int(rng.random() * 320), round(rng.random() * 80, 1)
    shapes: tuple[dict[str, object], ...]
    if french:
        shapes = (
            {"lieu": pick(_PLACES), "année": year, "hauteur_m": height, "ouvert": rng.random() < 0.5},
            {"gardien": _name(pick), "date": f"{year}-{1 + year % 12:02}-{1 + year % 28:02}", "heure": "14:30"},
        )
    else:
        shapes = (
            {"place": pick(_PLACES), "keeper": _name(pick), "visitors": int(rng.random() * 9000)},
            {"built": year, "height_m": height, "tags": [pick(_TAGS), pick(_TAGS)], "owner": {"name": _name(pick)}},
        )
    return json.dumps(shapes[int(rng.random() * 2)], ensure_ascii=False)


def _name(pick: Pick) -> str:
    return f"{pick(_NAMES)} {pick(_SURNAMES)}"


def _date(rng: random.Random, french: bool) -> str:
    day, month, year = 1 + int(rng.random() * 28), int(rng.random() * 12), 1850 + int(rng.random() * 174)
    return f"{day} {_MONTHS_FR[month] if french else _MONTHS_EN[month]} {year}"


def _contact(rng: random.Random, pick: Pick) -> str:
    return f"{pick(_SURNAMES).lower()}{int(rng.random() * 100)}@port-museum.example"


def _slipped(text: str, rng: random.Random) -> str:
    """Two neighbouring letters of a word of six or more swapped."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if len(word) > 5 and word.isalpha() and word.islower()]
    if places:
        place = places[int(rng.random() * len(places))]
        word = words[place]
        words[place] = word[:2] + word[3] + word[2] + word[4:]
    return " ".join(words)
