"""D210 and D211 over rows: one finding a row and kind, and never a secret in the open."""

from plume.checks.private import listed_names, personal_data, secrets
from plume.checks.rules import ROW_RULES, Batch
from plume.redact import listed
from plume.types import Example, Message, Role, Source

KEY = "sk-" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0"


def batch(*rows: tuple[tuple[Role, str], ...]) -> Batch:
    return Batch(
        "qa.jsonl",
        [
            Example(tuple(Message(role, text) for role, text in row), Source("qa.jsonl", line))
            for line, row in enumerate(rows, 1)
        ],
    )


CLEAN: tuple[tuple[Role, str], ...] = (("user", "Où est le phare ?"), ("assistant", "À Brest, depuis 1848."))


def test_rules_are_registered() -> None:
    assert personal_data in ROW_RULES["D210"]
    assert secrets in ROW_RULES["D211"]


def test_clean_rows_have_nothing() -> None:
    assert list(personal_data(batch(CLEAN, CLEAN))) == list(secrets(batch(CLEAN, CLEAN))) == []


def test_one_finding_for_each_row_and_kind() -> None:
    row: tuple[tuple[Role, str], ...] = (
        ("system", "Contact : garde@phare.fr"),
        ("user", "Qui appeler ?"),
        ("assistant", "a.b@phare.fr, c.d@phare.fr ou 06 12 34 56 78"),
    )
    findings = list(personal_data(batch(CLEAN, row, row)))
    assert [finding.source.line for finding in findings] == [2, 2, 3, 3]
    assert [finding.message for finding in findings[:2]] == [
        "3 e-mail addresses in the system turn and the completion",
        "a telephone number in the completion",
    ]
    assert {(finding.code, finding.severity) for finding in findings} == {("D210", "warning")}
    assert [finding.quote for finding in findings[:2]] == ["garde@phare.fr", "06 12 34 56 78"]


def test_plain_text_is_called_text() -> None:
    [finding] = personal_data(batch((("assistant", "Écrire à a.b@phare.fr"),)))
    assert finding.message == "an e-mail address in the text"


def test_a_secret_is_never_shown() -> None:
    [finding] = secrets(batch(CLEAN, (("user", f"clé {KEY}"), ("assistant", "Merci."))))
    assert (finding.code, finding.severity, finding.source.line) == ("D211", "error", 2)
    assert finding.message == "an OpenAI API key in the prompt (sk-a…); the value is not shown"
    assert finding.quote == KEY[:4]
    assert KEY[:6] not in repr(finding)


def test_of_a_short_password_less_is_shown() -> None:
    [finding] = secrets(batch((("user", "Et ?"), ("assistant", "mot de passe : Xk9fr22b"))))
    assert finding.message == "a password in the completion (Xk…); the value is not shown"
    assert finding.quote == "Xk"


def test_a_url_with_a_password_is_a_secret_and_no_address() -> None:
    rows = batch((("user", "Où ?"), ("assistant", "https://bob:s3cr3tPw@depot.fr/x")))
    [finding] = secrets(rows)
    assert "a password in an address" in finding.message
    assert list(personal_data(rows)) == []


def test_listed_names() -> None:
    rows = batch(CLEAN, (("user", "Qui ?"), ("assistant", "HELENE et Jean Dupont.")))
    [finding] = listed_names(rows, listed(["Hélène", "Jean Dupont"]))
    assert (finding.code, finding.source.line, finding.message) == ("D210", 2, "2 names of the list in the completion")
    assert list(listed_names(rows, listed(["Marie"]))) == []
