"""D107 to D109 and D204 to D216: each mistake is found, its innocent neighbour is not, however a file is cut."""

from __future__ import annotations

import importlib.util
import json
import pickle
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plume.checks import amount, answers, characters, language, leftovers, shapes, wording
from plume.checks.catalogue import CATALOGUE
from plume.checks.rules import ROW_RULES, SURVEYS, Batch
from plume.types import Example, Finding, Message, Role, Source

MODULES = {module.__name__ for module in (amount, answers, characters, language, leftovers, shapes, wording)}
LIGHTHOUSE = Path(__file__).parent.parent / "examples" / "lighthouse" / "train.jsonl"

Row = tuple[str, ...]  # system turns are written "system: …"


def examples(rows: Sequence[Row]) -> list[Example]:
    made = []
    for line, row in enumerate(rows, 1):
        turns: list[Message] = []
        for text in row:
            role: Role = "assistant" if len(row) == 1 or (turns and turns[-1].role == "user") else "user"
            if text.startswith("system: "):
                role = "system"
            turns.append(Message(role, text.removeprefix("system: ")))
        made.append(Example(tuple(turns), Source("qa.jsonl", line)))
    return made


def said(rows: Sequence[Example], *, parts: int, size: int) -> list[Finding]:
    """What every rule of these modules has to say of rows that come in batches, and in parts that merge."""
    found: list[Finding] = []
    each = max(1, -(-len(rows) // parts))
    batches = [
        [Batch("qa.jsonl", part[at : at + size]) for at in range(0, len(part), size)]
        for part in (rows[start : start + each] for start in range(0, len(rows), each))
    ] or [[]]
    for rule in {rule: None for rules in ROW_RULES.values() for rule in rules if rule.__module__ in MODULES}:
        found += [finding for part in batches for batch in part for finding in rule(batch)]
    for made in {made: None for several in SURVEYS.values() for made in several if made.__module__ in MODULES}:
        surveys = [made() for _ in batches]
        for survey, part in zip(surveys, batches, strict=True):
            for batch in part:
                survey.see(batch)
        for later in surveys[1:]:
            surveys[0].merge(pickle.loads(pickle.dumps(later)))  # noqa: S301
        found += surveys[0].findings()
    return sorted(found, key=lambda finding: (finding.source.line or 0, finding.code, finding.message))


def findings(rows: Sequence[Row], code: str) -> list[Finding]:
    """The findings of one code; checked to be the same in one piece and in several, well formed, and quoted truly."""
    made = examples(rows)
    whole = said(made, parts=1, size=1000)
    assert whole == said(made, parts=3, size=4)
    for finding in whole:
        assert finding.severity in CATALOGUE[finding.code].severity
        assert finding.message
        assert finding.hint
        if finding.quote and finding.source.line:
            assert any(finding.quote in text for text in rows[finding.source.line - 1])
    return [finding for finding in whole if finding.code == code]


def clean(number: int) -> list[Row]:
    """Rows that nothing is to be said about, French and English."""
    things = ["lamp", "boat", "bread", "sheep", "bell", "clock", "well", "mill", "bridge", "school", "oven", "pier"]
    rows: list[Row] = []
    for at in range(number):
        thing = f"{things[at % len(things)]} {at}"
        if at % 2:
            rows.append((f"Où est rangée la pièce « {thing} » ?", f"La pièce {thing} est rangée au fond de l’île."))
        else:
            rows.append((f"Where can the {thing} be found?", f"The {thing} can be found behind the house."))
    return rows


def lines(found: list[Finding]) -> list[int | None]:
    return [finding.source.line for finding in found]


def test_clean_rows_give_no_error_and_no_warning() -> None:
    made = examples(clean(40))
    assert [finding for finding in said(made, parts=1, size=1000) if finding.severity != "info"] == []


def test_the_example_data_give_no_error_and_no_warning() -> None:
    rows = [json.loads(line) for line in LIGHTHOUSE.read_text(encoding="utf-8").splitlines()]
    found = said(examples([(row["prompt"], row["completion"]) for row in rows]), parts=2, size=100)
    expected = {"D212"} if importlib.util.find_spec("py3langid") else set()
    assert {finding.code for finding in found} == expected
    assert all(finding.severity == "info" for finding in found)


# --- D107 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("Le cafÃ© est fermÃ©.", "Ã©"),
        ("Lâ€™Ã®le est petite.", "â€™"),
        ("Le cÅ“ur de la ville.", "Å“"),
        ("Il va Ã\u00a0 Paris.", "Ã\u00a0"),
        ("Il va Ã Paris et Ã la mer.".replace("Ã P", "à P"), "Ã"),
        ("Prix : 10 â‚¬ la nuit.", "â‚¬"),
        ("LA CÃ”TE EST LONGUE", "Ã”"),
        ("Hello ðŸ˜€ there", "ðŸ˜€"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", None),
        ("It went wrong\ufffd here", "\ufffd"),
        ("A bell\x07 rings.", "\x07"),
        ("A word\u200bbreak.", "\u200b"),
        ("Hidden \u202eorder", "\u202e"),
        ("Soft\u00adhyphen", "\u00ad"),
        ("Le cafe\u0301 est la\u0300.", "e\u0301"),
    ],
)
def test_garbled_and_invisible_characters_are_found(text: str, quote: str | None) -> None:
    rows = clean(12)
    rows[5] = (rows[5][0], text)
    found = findings(rows, "D107")
    assert lines(found) == [6]
    assert quote in (None, found[0].quote)


@pytest.mark.parametrize(
    "text",
    [
        "La «\u00a0liberté\u00a0» et l’égalité, voilà\u00a0: c’est là…",
        "« É » et « À » sont des lettres ; Île d’Aix, Âge, Ñandú, CAFÉ",
        "A família MAÇÃ” e »Å«, „Spaß“, Öl, Ärger",
        "Emoji: 👩‍👩‍👧 🏳️‍🌈 👍🏽 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می‌خواهم क्‍ष",
        "Tabs\tand\r\nlines\nare text",
        "日本語、中文、한국어, Ελληνικά, Русский, שלום\u200e abc",
        "tiếng Việt, ångström, naïve, œuvre, 5 µm ± 2 °C, 3 ½, § 4",
    ],
)
def test_sane_characters_are_left_alone(text: str) -> None:
    rows = clean(12)
    rows[5] = (rows[5][0], unicodedata.normalize("NFC", text))
    assert [finding for finding in findings(rows, "D107") if "follows" not in finding.message] == []


def test_a_whole_file_of_one_fault_is_said_once() -> None:
    rows = [(prompt, unicodedata.normalize("NFD", answer + " Été.")) for prompt, answer in clean(30)]
    (found,) = findings(rows, "D107")
    assert "30 of 30" in found.message
    assert found.related


def test_spaces_before_marks_must_be_of_one_kind() -> None:
    rows = [(prompt.replace(" ?", "\u00a0?"), answer) for prompt, answer in clean(20)]
    assert findings(rows, "D107") == []
    rows[9] = (rows[9][0].replace("\u00a0?", " ?"), rows[9][1])
    (found,) = findings(rows, "D107")
    assert found.source.line == 10
    assert "ordinary space in 1 of 10" in found.message
    french = [("Où\u202f? Là\u00a0: ici\u202f!", f"Réponse {n}") for n in range(12)]
    assert findings(french, "D107") == []


# --- D108 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("The &quot;lamp&quot; is lit.", "&quot;"),
        ("L&#39;île est l&agrave;.", "&#39;"),
        ("<p>The lamp is lit.</p>", "<p>"),
        ("Première ligne<br/>deuxième", "<br/>"),
        ('See <a href="x.html">the tower</a>.', '<a href="x.html">'),
        ("C’est <b>important</b>.", "<b>"),
        ('```json\n{"lamp": 1}\n```', "```json"),
        ("The lamp is lit.\n```", "```"),
        (r"The field max\_length is 5.", r"\_"),
        (r"Environ 5 \% des cas.", r"\%"),
    ],
)
def test_markup_left_in_is_found(answer: str, quote: str) -> None:
    rows = clean(12)
    rows[3] = (rows[3][0], answer)
    found = findings(rows, "D108")
    assert lines(found) == [4]
    assert found[0].quote == quote


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("When is it less?", "When a < b and c > d; x & y are bits, R&D; too."),
        ("What does the function return?", "It returns a List<int>, or Map<a, b>; vector<a> in C++."),
        ("How do I write a quote in HTML?", "Write &quot; or use <p> and <b>bold</b>."),
        ("Que veut dire &nbsp; en HTML ?", "Une espace insécable."),
        ("Write a Python function.", "```python\nprint(1)\n```"),
        ("Explain the loop.", "It runs:\n```\nfor x in y: pass\n```\nand ends."),
        ("What is the sum?", r"It is $a\_b$ and \(x\_1\)."),
        ("Where is it?", r"In C:\_old and C:\temp."),
        ("C pointer?", "int *p = &copy; is its address."),
    ],
)
def test_code_and_mathematics_are_no_leftovers(prompt: str, answer: str) -> None:
    rows = clean(12)
    rows[3] = (prompt, answer)
    assert findings(rows, "D108") == []


def test_files_whose_answers_are_markup_are_left_alone() -> None:
    assert findings([(f"Build part {n}.", f"<div>Part {n}</div>") for n in range(12)], "D108") == []
    assert findings([(f"Solve part {n}.", f"```\npart {n}\n```") for n in range(12)], "D108") == []


# --- D109 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Bonjour [NOM], bienvenue.", "Write to [EMAIL].", "Dear [Your name], hello.", "Cher [Votre nom], bonjour.",
        "Call [insert number here] now.", "Hello {name}, welcome.", "Hello {{user}}, welcome.", "Je suis <NOM>.",
        "Dear <YOUR NAME>, hello.", "Monsieur XXX est là.", "The key is XXXXXX.", "Lorem ipsum dolor sit amet.",
        "TODO: write this.", "TODO", "Je m'appelle ___.", "[NOM_CLIENT] habite [VILLE].", "[DATE DE NAISSANCE] : oui",
        '{"email": "[EMAIL]"}', "[PERSON_1] met [PERSON_2].",
    ],
)  # fmt: skip
def test_placeholders_are_found(text: str) -> None:
    rows = clean(12)
    rows[7] = (rows[7][0], text)
    assert lines(findings(rows, "D109")) == [8]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ruz", "tags": ["a", "b"], "in": {"x": [0]}}', "See [the tower](https://example.org/name).",
        "It was built in 1867 [1] and [2].", "- [ ] one\n- [x] two", "Take a[0] and b[i].", "Louis XXX, Super Bowl XXX",
        "Les siècles XXIX et XXX.", "TODO lists help people.", "Write __init__ in it.", "df[name] is a column.",
        "`{name}` is filled by str.format.", 'f"Hello {name}" prints it.', "He said [the mayor] was [sic] away.",
        "The set {x} and {1, 2}.", r"\frac{name}{date}", "Above\n\n___\n\nbelow", "List<T> and Map<K, V>",
        "[INFO] started", "[A-Z] matches a capital.", "XXL shirts", "Title [NATO]",
    ],
)  # fmt: skip
def test_brackets_and_numerals_are_no_placeholders(text: str) -> None:
    rows = clean(12)
    rows[7] = (rows[7][0], text)
    assert findings(rows, "D109") == []


def test_a_gap_in_a_question_and_thirty_in_roman_numerals_are_fair() -> None:
    rows = [*clean(12), ("The capital of France is ___.", "Paris"), ("What is 30 in Roman numerals?", "XXX")]
    assert findings(rows, "D109") == []


# --- D204 and D205 -------------------------------------------------------------------------------


def objects(number: int, **changes: Any) -> list[Row]:
    return [
        (f"Qui est la personne {n} ?", json.dumps({"name": f"Yann {n}", "age": 20 + n, **changes}))
        for n in range(number)
    ]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("{'name': 'Yann'}", "single quotes"),
        ('{"name": "Yann", "age": 3', "cut short"),
        ('{"name": "Yann",}', "comma"),
        ("Yann est le boulanger.", "not JSON"),
        ('{"name": "Yann", "age": NaN}', "NaN"),
        ('{"name": "Yann"} et voilà', "text follows"),
    ],
)
def test_an_answer_that_is_not_json_among_others_that_are(answer: str, cause: str) -> None:
    rows = objects(12)
    rows[4] = (rows[4][0], answer)
    (found,) = findings(rows, "D204")
    assert (found.source.line, found.severity) == (5, "error")
    assert cause in found.message
    assert "11 of 12" in found.message


def test_prose_scalars_and_mixed_files_are_not_invalid_json() -> None:
    assert findings(clean(12), "D204") == []
    assert findings([*objects(6), *clean(6)], "D204") == []
    assert findings([*objects(12), ("Combien ?", "42")], "D204") == []
    assert findings([*objects(3), ("Qui ?", "Yann")], "D204") == []


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ('{"name": "Yann", "age": "50"}', '"age" is a number in quotes here and a number in 11'),
        ('{"name": ["Yann"], "age": 50}', '"name"'),
        ('{"age": 50, "name": "Yann"}', "order"),
        ('{"name": "Yann"}', '"age" is missing'),
        ('{"nane": "Yann", "age": 50}', '"nane" stands where 11 other answers have "name"'),
    ],
)
def test_an_answer_of_another_mould(answer: str, part: str) -> None:
    rows = objects(12)
    rows[4] = (rows[4][0], answer)
    (found,) = findings(rows, "D205")
    assert found.source.line == 5
    assert part in found.message
    assert found.related


def test_an_added_key_and_a_nested_type() -> None:
    rows = objects(40, place={"lat": 1.5, "tags": ["a"]})
    assert findings(rows, "D205") == []
    rows[4] = (rows[4][0], rows[4][1].replace("1.5", '"1.5"'))
    rows[9] = (rows[9][0], rows[9][1][:-1] + ', "note": "x"}')
    found = findings(rows, "D205")
    assert lines(found) == [5, 10]
    assert '"place.lat"' in found[0].message
    assert '"note" is added' in found[1].message


def test_several_legitimate_shapes_live_together() -> None:
    other = [(f"How many {n}?", json.dumps({"count": n, "unit": None if n % 2 else "kg"})) for n in range(8)]
    kinds = [(f"What is {n}?", json.dumps({"name": f"x{n}", "kind": "boat", "crew": n})) for n in range(6)]
    short = [(f"What kind is {n}?", json.dumps({"name": f"y{n}", "kind": "hill"})) for n in range(30)]
    mixed = [(f"List {n}.", json.dumps({"items": [{"a": 1}, {"a": 2}][: n % 3]})) for n in range(9)]
    assert findings([*objects(12), *other, *kinds, *short, *mixed], "D205") == []


# --- D206 and D207 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Where can the lamp be found?", "Where can the lamp be found? In the tower."),
        ("Où est rangée la lampe ?", "Où est rangée la lampe ?"),
        ("Where is the lamp?", "In the tower.\nQuestion: Where is the boat?"),
        ("Où est la lampe ?", "Dans la tour. Question : où est le bateau ?"),
        ("Where is the lamp?", "In the tower.\n\nUser: and the boat?"),
        ("Where is the lamp?", "In the tower.\n### Instruction:\nNext"),
        ("Where is the lamp?", "In the tower.<|im_start|>user"),
    ],
)
def test_echoes_and_answers_that_run_on(prompt: str, answer: str) -> None:
    assert lines(findings([*clean(11), (prompt, answer)], "D206")) == [12]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Bonjour", "Bonjour ! Comment puis-je vous aider ?"),
        ("Yes", "Yes"),
        ("The lamp", "The lamp is in the tower."),
        ("Write a quiz about lamps.", "Question: What is lit?\nQuestion: By whom?"),
        ("What is the issue?", "The main question: who lit the lamp."),
        ("Question: where is it?\nUser: me", "In the tower."),
        ("Écris un dialogue.", "Paul.\nUser: bonjour"),
    ],
)
def test_greetings_and_dialogues_are_no_echo(prompt: str, answer: str) -> None:
    assert findings([*clean(11), (prompt, answer)], "D206") == []


def test_questions_for_answers_are_said_once_and_only_when_many() -> None:
    asked = [("Où est la lampe ?", "Où est le bateau ?"), ("Who lit it?", "Who was there?"), ("When?", "Why?")]
    (found,) = findings([*clean(12), *asked], "D207")
    assert (found.source.line, found.quote) == (13, "Où est le bateau ?")
    assert "3 of 15" in found.message
    polite = [("Hello", "How can I help you?"), ("It is broken.", "Which lamp is it?")]
    assert findings([*clean(10), *polite], "D207") == []
    assert findings([*clean(10), *asked[:2]], "D207") == []
    writing = [(f"Write a question about lamp {n}.", f"Where is lamp {n}?") for n in range(12)]
    assert findings(writing, "D207") == []


# --- D208, D209, D213, D216 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"), [("", "\n"), (" ", ""), ("", " ###"), ("", "</s>"), ("", "\n\n"), ("", "<|endoftext|>")]
)
def test_ends_of_answers_must_agree(before: str, after: str) -> None:
    rows = clean(12)
    everywhere = [(prompt, before + answer + after) for prompt, answer in rows]
    assert findings(everywhere, "D208") == []
    one = [everywhere[n] if n == 6 else row for n, row in enumerate(rows)]
    assert lines(findings(one, "D208")) == [7]
    all_but_one = [rows[n] if n == 8 else row for n, row in enumerate(everywhere)]
    assert lines(findings(all_but_one, "D208")) == [9]


def test_ends_of_prompts_must_agree() -> None:
    rows = [(prompt + "\n\n###\n\n", answer) for prompt, answer in clean(12)]
    assert findings(rows, "D208") == []
    rows[2] = (rows[2][0].removesuffix("\n\n###\n\n"), rows[2][1])
    assert set(lines(findings(rows, "D208"))) == {3}
    words = [*clean(11), ("Comment finit le film ?", "Par le mot FIN"), ("What is shown?", "The word END")]
    assert findings(words, "D208") == []


@pytest.mark.parametrize("base", ["You are a helpful assistant. Question: ", "Tu es un assistant poli. "])
def test_a_base_prompt_on_some_rows_only(base: str) -> None:
    rows = [(base + row[0], row[1]) if n % 3 == 1 else row for n, row in enumerate(clean(30))]
    (found,) = findings(rows, "D209")
    assert found.source.line == 2
    assert "10 of 30" in found.message
    assert findings([(base + prompt, answer) for prompt, answer in clean(30)], "D209") == []


def test_a_base_prompt_in_several_versions_and_system_turns() -> None:
    versions = ("You are a helpful assistant. ", "You are an helpful assistant. ")
    rows = [(versions[n == 7] + row[0], row[1]) for n, row in enumerate(clean(20))]
    (found,) = findings(rows, "D209")
    assert "several versions" in found.message
    assert found.source.line == 8
    systems: list[Row] = [("system: You keep the lighthouse.", *row) for row in clean(20)]
    assert findings(systems, "D209") == []
    systems[4] = systems[4][1:]
    assert len(findings(systems, "D209")) == 1


def test_instructions_of_several_tasks_are_no_base_prompt() -> None:
    tasks = ("Translate this sentence. ", "Summarise this text. ", "Corrige cette phrase. ")
    assert findings([(tasks[n % 3] + row[0], row[1]) for n, row in enumerate(clean(30))], "D209") == []
    openings = [(f"I would like to know where lamp {n} is.", f"In tower {n}.") for n in range(30)]
    assert findings(openings, "D209") == []


def test_stripped_stop_words_are_noticed() -> None:
    english = [(f"lamp {n} place?", "lamp stands tower behind old harbour house") for n in range(6)]
    french = [(f"lampe {n} lieu ?", "lampe posée tour derrière vieille maison port") for n in range(6)]
    (found,) = findings([*english, *french], "D213")
    assert "12 of 12" in found.message
    questions = [(f"where lamp number {n} stand tower?".removeprefix("where "), "Tower") for n in range(12)]
    assert len(findings(questions, "D213")) == 1


def test_keywords_code_json_names_and_other_languages_keep_their_words() -> None:
    assert findings(clean(30), "D213") == []
    assert findings(objects(30), "D213") == []
    keywords = [(f"best cheap hotel harbour {n}", "Hotel Bellevue") for n in range(12)]
    names = [(f"Who came on day {n}?", "Yann Caradour, Anna Le Gall, Marie Kerven, Paul Tanguy") for n in range(12)]
    code = [(f"Write code {n}.", "print(lamp); return tower[boat]") for n in range(12)]
    german = [(f"Wo steht Lampe {n}?", "die Lampe steht hinter dem alten Haus") for n in range(12)]
    czech = [(f"Kde {n}?", "lampa stojí vedle starého přístavního domu") for n in range(12)]
    for rows in (keywords, names, code, german, czech):
        assert findings(rows, "D213") == []


def test_final_marks_of_prompts() -> None:
    rows = [(prompt.rstrip(" ?") if n % 4 == 3 else prompt, answer) for n, (prompt, answer) in enumerate(clean(20))]
    (found,) = findings([(prompt.replace(" »", ""), answer) for prompt, answer in rows], "D216")
    assert (found.source.line, found.severity) == (4, "info")
    assert "5 of 20" in found.message
    assert findings(clean(20), "D216") == []
    assert findings([*clean(19), ("lamp place", "The tower is the place.")], "D216") == []


# --- D212, D214, D215 ----------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("py3langid") is None, reason="needs the extra lang")
def test_languages_are_counted_where_they_mix() -> None:
    rows = clean(60)
    (found,) = findings(rows, "D212")
    assert found.severity == "info"
    assert "English 50 %" in found.message
    assert "French 50 %" in found.message
    assert findings(rows[::2], "D212") == []
    assert findings(rows[1::2], "D212") == []
    crossed = [(french[0], english[1]) for english, french in zip(rows[::2], rows[1::2], strict=True)]
    assert "answers: English 100 %" in findings(crossed, "D212")[0].message


def test_one_answer_to_most_questions() -> None:
    rows = [(prompt, "Oui." if n % 5 else answer) for n, (prompt, answer) in enumerate(clean(20))]
    (found,) = findings(rows, "D214")
    assert (found.source.line, found.severity) == (2, "warning")
    assert "16 of 20 (80 %)" in found.message
    half = [(prompt, "Oui." if n % 2 else answer) for n, (prompt, answer) in enumerate(clean(20))]
    assert findings(half, "D214") == []
    assert findings(rows[:9], "D214") == []


def test_a_rare_form_of_answer() -> None:
    assert [f.severity for f in findings([*clean(40), *objects(1)], "D214")] == ["info"]
    assert findings([*clean(40), *objects(10)], "D214") == []


def test_amount() -> None:
    (one,) = findings(clean(1), "D215")
    assert (one.severity, one.source) == ("error", Source("qa.jsonl"))
    (few,) = findings(clean(9), "D215")
    assert (few.severity, few.message) == ("warning", "there are only 9 examples")
    (single,) = findings(clean(12), "D215")
    assert (single.severity, "12 of 12" in single.message) == ("info", True)
    asked = ("Where is", "Find the", "Où est")
    phrased = [(f"{words} lamp {n}?", f"In tower {n}.") for n in range(6) for words in asked]
    assert findings(phrased, "D215") == []
    assert findings([("Il était une fois une lampe.",)], "D215") == []
    assert findings([], "D215") == []


# --- found in realistic files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "emoji", ["\U0001f3f4\u200d\u2620\ufe0f", "\U0001f43b\u200d\u2744\ufe0f", "\U0001f642\u200d\u2194\ufe0f"]
)
def test_emoji_of_several_symbols_are_sane(emoji: str) -> None:
    assert findings([*clean(11), ("What flies there?", f"A {emoji} flies there.")], "D107") == []
    (found,) = findings([*clean(11), ("What flies there?", f"A fl{emoji[1]}ag flies there.")], "D107")
    assert found.quote == emoji[1]


def test_a_name_left_out_after_a_comma_is_no_list_of_arguments() -> None:
    (found,) = findings([*clean(11), ("Greet her.", "Bonjour, [NOM], soyez la bienvenue.")], "D109")
    assert found.quote == "[NOM]"
    assert findings([*clean(11), ("How is it called?", "Call it so: sort(rows, [name])")], "D109") == []


@pytest.mark.parametrize(
    "answer",
    ["H<sub>2</sub>O and x<sup>2</sup>", "chmod +x <script> makes it so", "| Step | Do |\n| 1 | wait<br>rest |"],
)
def test_indices_arguments_and_breaks_in_tables_are_no_tags_left_in(answer: str) -> None:
    assert findings([*clean(11), ("How is it written?", answer)], "D108") == []


def test_an_open_fence_is_not_said_to_stand_round_the_answer() -> None:
    (found,) = findings([*clean(11), ("What then?", "Then this:\n```\nleft turn")], "D108")
    assert "never closed" in found.message


def test_another_key_at_the_place_of_the_usual_one() -> None:
    def boat(number: int, key: str = "length") -> Row:
        return (f"Which boat lies at {number}?", json.dumps({"boat": f"Petrel {number}", key: 6.5, "berth": number}))

    (found,) = findings([*map(boat, range(11)), boat(12, "size")], "D205")
    assert found.quote == "size"
    assert '"size" stands where 11 other answers have "length"' in found.message
    assert '"boat", "length", "berth"' in found.hint
    own = [boat(number, key) for number, key in ((12, "size"), (13, "draught"))]
    assert findings([*map(boat, range(20)), *own], "D205") == []  # each kind of boat has its own


def test_answers_that_share_no_mould_are_not_measured_by_one() -> None:
    keys = "abcdefghijklmnopqrstuvwxyz"
    rows: list[Row] = [
        (f"Describe thing {n}.", json.dumps({"meta": {"x": 1, "y": 2} if n % 2 else {"y": 2, "x": 1}, keys[n]: n}))
        for n in range(26)
    ]
    assert findings(rows, "D205") == []
    assert findings(rows[:18], "D205") != []


def test_json_answers_are_told_apart_however_they_are_parsed() -> None:
    rows = objects(60)
    texts = [
        (41, '{"a": 1}, {"b": 2}'),
        (42, "[1"),
        (43, "2]"),
        (55, '{"name": "the next answer of the file", "age": 3}'),
    ]
    for line, text in texts:
        rows[line] = (rows[line][0], text)
    assert lines(findings(rows, "D204")) == [42, 43, 44]


def test_a_long_opening_that_changes_nothing_is_a_base_prompt_and_a_task_is_none() -> None:
    base = "The keeper at the harbour desk is brief and kind. No hours or prices are ever made up. "
    rows = [(base + row[0], row[1]) if n % 3 == 1 else row for n, row in enumerate(clean(30))]
    (found,) = findings(rows, "D209")
    assert found.quote == base.rstrip()
    task = "You are a translator; put the sentence that follows into plain French, please.\n"
    rows = [(task + "The door is open.", f"Porte {n}.") if n % 3 == 1 else row for n, row in enumerate(clean(30))]
    assert findings(rows, "D209") == []
    short = [(f"Answer in one word. {row[0]}", "Lamp") if n % 3 == 1 else row for n, row in enumerate(clean(30))]
    assert findings(short, "D209") == []


def test_a_base_prompt_in_other_words() -> None:
    one = "You answer at the desk of a small town. Be brief and friendly, and never invent opening hours.\n"
    other = "You are the desk of a small town; answer in one short sentence and do not make up any hours.\n"
    rows = [((one, other)[n % 3 == 1] + row[0], row[1]) for n, row in enumerate(clean(30))]
    (found,) = findings(rows, "D209")
    assert "several versions" in found.message
    assert found.quote == other


def test_questions_without_small_words_beside_sound_answers() -> None:
    rows: list[Row] = [(f"lamp number {n} stand tower?", f"It stands in the tower of the town {n}.") for n in range(12)]
    (found,) = findings(rows, "D213")
    assert "questions" in found.message


def test_a_translation_keeps_its_questions() -> None:
    asking = [(f"Where is lamp {n}?", f"Où est la lampe {n} ?") for n in range(8)]
    telling = [(f"Lamp {n} is here.", f"La lampe {n} est ici.") for n in range(8)]
    assert findings([*asking, *telling], "D207") == []
    told: list[Row] = [(f"Tell me of lamp {n}.", f"Which lamp {n}?") for n in range(8)]
    assert len(findings([*asking, *told], "D207")) == 1
    ordered = [(f"Translate into French: {prompt}", answer) for prompt, answer in asking]
    assert findings([*ordered, *clean(4)], "D207") == []


def test_only_facts_want_several_wordings() -> None:
    poems: list[Row] = [(f"Write a line on lamp {n}.", f"O lamp {n}!") for n in range(12)]
    assert findings(poems, "D215") == []
    facts: list[Row] = [(f"Where is lamp {n}?", f"In tower {n}.") for n in range(12)]
    assert len(findings(facts, "D215")) == 1
