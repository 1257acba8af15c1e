"""What is recognised as personal or secret, what is not, and what redaction leaves behind."""

import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plume.errors import UserError
from plume.redact import (
    KINDS,
    SECRETS,
    listed,
    may_hold_name,
    may_hold_personal,
    may_hold_secret,
    read_names,
    recognise,
    redact,
)
from test_redact_wordings import check_time

# No key stands here in one piece: what scans published code for keys is to find none.
LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0fG3hJ6"
JWT = ".".join(["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiJwaGFyZSJ9", LETTERS])
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----"
PEM_END = "-----END RSA " + "PRIVATE KEY-----"

PERSONAL_TEXTS = [
    ("email", "Écrivez à jean.dupont@mairie-brest.fr.", "jean.dupont@mairie-brest.fr"),
    ("email", "l'adresse d'alice@laposte.net, merci", "alice@laposte.net"),
    ("email", "Write to marie@example.com or call", "marie@example.com"),
    ("email", "<a.b+tag@sub.phare.co.uk>", "a.b+tag@sub.phare.co.uk"),
    ("phone", "Tél. : 06 12 34 56 78", "06 12 34 56 78"),
    ("phone", "appelez le 06.12.34.56.78.", "06.12.34.56.78"),
    ("phone", "Appelez le n° 0612345678", "0612345678"),
    ("phone", "au 01\u00a042\u00a068\u00a053\u00a000 (standard)", "01\u00a042\u00a068\u00a053\u00a000"),
    ("phone", "+33 (0)6 12 34 56 78", "+33 (0)6 12 34 56 78"),
    ("phone", "call +33612345678 now", "+33612345678"),
    ("phone", "0033 6 12 34 56 78", "0033 6 12 34 56 78"),
    ("phone", "+33 6 12 34 56 78 2024", "+33 6 12 34 56 78"),
    ("phone", "call (415) 555-2671 today", "(415) 555-2671"),
    ("phone", "call +1 415-555-2671", "+1 415-555-2671"),
    ("phone", "ring 020 7946 0958", "020 7946 0958"),
    ("phone", "le 0 800 123 456 est gratuit", "0 800 123 456"),
    ("phone", "à Liège, 0470 12 34 56", "0470 12 34 56"),
    ("phone", "à Saint-Denis, 0692 41 87 30", "0692 41 87 30"),
    ("phone", "Martinique : 0696 31 48 02", "0696 31 48 02"),
    ("phone", "ph: 4155552671", "4155552671"),
    ("phone", "her German cell is 0151 2345 8967", "0151 2345 8967"),
    ("phone", "au 06 12 34  56 78, le soir", "06 12 34  56 78"),
    ("phone", "they rang from 01632 960 011", "01632 960 011"),
    ("phone", "fiction: +44 1632 960011", "+44 1632 960011"),
    ("phone", "the Montréal office is 514 555 0111.", "514 555 0111"),
    ("phone", "landline 030 23125 111", "030 23125 111"),
    ("phone", "call the Madrid office 913 555 012 at noon", "913 555 012"),
    ("phone", "appelez Pilar au 655 123 456", "655 123 456"),
    ("email", "écrire à marie.blin(at)phare.fr", "marie.blin(at)phare.fr"),
    ("email", "ana [at] phare [dot] co [dot] uk", "ana [at] phare [dot] co [dot] uk"),
    ("ip", "connexion depuis 51.15.20.33, port 22", "51.15.20.33"),
    ("ip", "from 91.198.174.192:443", "91.198.174.192"),
    ("ip", "host 2a01:cb00:8f2:9c00::1 answered", "2a01:cb00:8f2:9c00::1"),
    ("ip", "connexion vers 51.15.20.33", "51.15.20.33"),
    ("ip", "client ::ffff:51.15.20.33", "::ffff:51.15.20.33"),
    ("email", "write to o'brien@galway.ie", "o'brien@galway.ie"),
    ("email", "mary.o’neil@galway.ie", "mary.o’neil@galway.ie"),
    ("card", "card 4111.1111.1111.1111", "4111.1111.1111.1111"),
    ("card", "carte 4111 1111 1111 1111, code", "4111 1111 1111 1111"),
    ("card", "card 5555-5555-5555-4444", "5555-5555-5555-4444"),
    ("card", "card 378282246310005.", "378282246310005"),
    ("iban", "IBAN FR76 3000 6000 0112 3456 7890 189 à Brest", "FR76 3000 6000 0112 3456 7890 189"),
    ("iban", "pay to GB29NWBK60161331926819", "GB29NWBK60161331926819"),
    ("iban", "de89370400440532013000", "de89370400440532013000"),
    ("nir", "n° 1 85 05 78 006 084 91", "1 85 05 78 006 084 91"),
    ("nir", "1.85.05.78.006.084.91", "1.85.05.78.006.084.91"),
    ("nir", "1 85 05 78 006 084/91", "1 85 05 78 006 084/91"),
    ("nir", "1 85 05 78 006 084 clé 91", "1 85 05 78 006 084 clé 91"),
    ("nir", "NIR 269054958815780 ;", "269054958815780"),
]

SECRET_TEXTS = [
    ("openai-key", f"clé sk-{LETTERS} perdue", f"sk-{LETTERS}"),
    ("openai-key", f"sk-proj-{LETTERS}_x-{LETTERS}", f"sk-proj-{LETTERS}_x-{LETTERS}"),
    ("anthropic-key", f"sk-ant-api03-{LETTERS}", f"sk-ant-api03-{LETTERS}"),
    ("aws-key", "id AKIA" + "QWERTYUIOPASDFGH", "AKIA" + "QWERTYUIOPASDFGH"),
    ("github-token", f"ghp_{LETTERS}", f"ghp_{LETTERS}"),
    ("github-token", f"github_pat_{LETTERS}", f"github_pat_{LETTERS}"),
    ("gitlab-token", f"glpat-{LETTERS[:20]}", f"glpat-{LETTERS[:20]}"),
    ("slack-token", "xoxb-" + "123456789012-abcdefghijkl", "xoxb-" + "123456789012-abcdefghijkl"),
    ("google-key", f"AIza{LETTERS[:35]}", f"AIza{LETTERS[:35]}"),
    ("hugging-face-token", "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH", "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH"),
    ("stripe-key", f"sk_live_{LETTERS[:24]}", f"sk_live_{LETTERS[:24]}"),
    ("jwt", f"Bearer {JWT}", JWT),
    ("private-key", f"{PEM}\n{LETTERS}\n{PEM_END}\nfin", f"{PEM}\n{LETTERS}\n{PEM_END}"),
    ("url-credentials", "https://bob:s3cr3tPw@depot.fr/x", "bob:s3cr3tPw"),
    ("url-credentials", "postgres://app:Xk9fr22z@db:5432/base", "app:Xk9fr22z"),
    ("url-credentials", "curl -u bob:s3cr3tPw host/x", "bob:s3cr3tPw"),
    ("stripe-key", f"sk_test_{LETTERS[:24]}", f"sk_test_{LETTERS[:24]}"),
    *(
        ("api-key", f"{before}{key}", key)
        for before, key in [
            ("clé ", "npm_" + LETTERS),
            ("", "SG." + LETTERS[:22] + "." + LETTERS[:33]),
            ("bot ", "123456789:" + "AA" + LETTERS[:33]),
            ("le jeton ", "glsa_" + LETTERS[:32] + "_0a1b2c3d"),
            ("", "pplx-" + LETTERS),
            ("https://hooks.slack.com/services/", "T0A1B2C3D/" + "B0A1B2C3D/" + LETTERS[:24]),
            ("TOKEN_DEPLOY=", LETTERS),
            ("clé d’API OVH : ", LETTERS),
            ("login bob password ", LETTERS),
            ("le jeton du wiki est ", "a8f5f167f44f4964e6c998dee827110c"),
            ("Authorization: Bearer ", LETTERS),
            ("Authorization: Basic ", LETTERS),
            ("curl -u :", LETTERS),
            ("clé ", "a8f5f167f44f4964e6c998dee827110c" + "-us7"),
            ("//registre.phare.fr/:_auth=", LETTERS),
            ("secret_key_base: ", "a8f5f167f44f4964e6c998dee827110c"),
            ("API_KEY_PROD=", LETTERS),
            ("https://api.phare.fr/v1?lat=48&appid=", "a8f5f167f44f4964e6c998dee827110c"),
        ]
    ),
    ("password", "password = hunter2", "hunter2"),
    ("password", 'Password: "Tr0ub4dor&3"', "Tr0ub4dor&3"),
    ("password", "Mot de passe : Xk9!fr22.", "Xk9!fr22"),
    ("password", "Mot de passe\u00a0: «\u00a0Xk9!fr22\u00a0»", "Xk9!fr22"),
    ("password", "le mot de passe du wifi : Xk9fr22b", "Xk9fr22b"),
    ("password", "**Mot de passe :** azerty123", "azerty123"),
    ("password", '{"password": "s3cr3tPw"}', "s3cr3tPw"),
    ("password", "DB_PASSWORD=Xk9fr22b", "Xk9fr22b"),
    *(
        ("password", f"{before}{value}{after}", value)
        for before, value, after in [
            ("mon mot de passe c'est ", "Xk9fr22b!", " mais rien ne s'ouvre"),
            ("le mot de passe de la boîte commune est ", "Phare#2031", "."),
            ("the password for the old test box is ", "galerne42", ", keep it"),
            ("clé du wifi : ", "Galerne-38-Phare", ""),
            ("pw of the shared mailbox = ", "Gull&Tern4", ""),
            ("dbPassword: ", "Xk9fr22b", ""),
            ("PGPASSWORD=", "qu1et-R1ver", " psql"),
            ("export DB_PASS='", "Xk9fr22b!", "'"),
            ('{"motDePasse": "', "Galerne-42", '"}'),
            ("openssl enc -pass pass:", "Galerne+42", " -in x"),
            ("login: jb\nPass: ", "Blue-Tern-42", ""),
            ("login jean password ", "Galerne_42", ""),
            ("I typed my password (", "Galerne_42", ") there"),
            ("I changed the door password to ", "Galerne!2031", " today"),
            ("phrase secrète : ", "phare-galerne-goémon", ""),
            ("CREATE USER jb IDENTIFIED BY '", "Xk9fr22b", "';"),
            ("ALTER ROLE jb WITH PASSWORD '", "Xk9fr22b", "';"),
            ("mysql -u root -p", "Xk9fr22b", " base"),
            ("docker login r.phare.fr -u ci -p ", "Xk9fr22b", ""),
            ("sshpass -p '", "Xk9fr22b", "' ssh phare"),
        ]
    ),
    ("api-key", 'api_key="a8f5f167f44f4964e6c998dee827110c"', "a8f5f167f44f4964e6c998dee827110c"),
    ("api-key", "clé d’API : a8f5f167f44f4964e6c998dee827110c", "a8f5f167f44f4964e6c998dee827110c"),
]

HARMLESS = [
    "en 1789, puis en 2024-2025, soit 235 ans",
    "le 12/05/2024 à 14:30:15",
    "01/02/2024 10:30 ou 01-02-2024 10",
    "1 234 567,50 € et 12 x 34 x 56 cm",
    "ISBN 978-2-07-036822-8, ISBN 0306406152",
    "les chiffres 0123456789",
    "tirage : 01 02 03 04 05 06 07",
    "SIRET 732 829 320 00074",
    "id 1700000000000, 1234567890123456, 550e8400-e29b-41d4-a716-446655440000",
    "version 1.2.3.4, Chrome 120.0.6099.109, § 51.2.3.44",
    "127.0.0.1, 0.0.0.0, 192.0.2.1, 198.51.100.7, 203.0.113.9, 192.168.1.1, 2001:db8::1, ::1",
    "std::vector<int> v; x[1::2]; 12:30:45",
    "logo@2x.png, git@github.com:moi/depot.git, @alice, 3 @ 2.50, user@example.com",
    "4111 1111 1111 1112",
    "FR76 3000 6000 0112 3456 7890 188",
    "1 85 05 78 006 084 90",
    "AKIAIOSFODNN7EXAMPLE",
    "sk-" + "x" * 40,
    "sk-learn-tutorial-for-beginners-2024",
    "https://user:password@host/ et postgres://user:${PASSWORD}@db/x",
    "password: your password",
    "Mot de passe : comment le changer ?",
    "Un bon mot de passe : douze signes, dont 2 chiffres.",
    'password = os.environ["DB_PASS1"]; password = getpass.getpass()',
    'password: <password>, password: ********, "password": "string", password: VARCHAR(255)',
    ":param passwd: **DEPRECATED** Alias for password.",
    'api_key = "YOUR_API_KEY"; token = tokenizer_v2_large_2024_model',
    f"{PEM}\n...\n{PEM_END} et -----BEGIN PUBLIC KEY-----",
    "<email-1> et <phone-2>, <password-1>: <api-key-1>",
    "docker run -u 1000:1000 image2024; sort -u a1:b2c3d4e5",
    "key-value store, SK de 2024, re_match_2024, ?key=value&page=2, ya29.x",
    "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP",
    "give me the password to server12, reset the password to continue2024",
    "the password is 12-character long, le mot de passe est valable 90 jours",
    "password OAuth2-based, password SHA-256, the password manager 1Password7, password field_12",
    "pass: 12345678, fail: 2; boarding pass : AF1234567; tests pass: all",
    "password changed at 2024-11-05T10:30:45Z; the password is at https://phare.fr/a1",
    "PWD=/home/jean2024; mysql -p -u root base2024; ssh -p 2222 hote2024; docker run -p 8080:80 nginx2024",
    "commande 416 555 0125, 416 555 0125 €, 416 555 0125 3333, call id 212 555 0123",
    "01  42  68  53  00",
    "le modèle de téléphone 2024, fax 3, mobile 12 345 678",
]


@pytest.mark.parametrize(("kind", "text", "value"), PERSONAL_TEXTS + SECRET_TEXTS)
def test_recognised(kind: str, text: str, value: str) -> None:
    assert [(match.kind, match.text) for match in recognise(text)] == [(kind, value)]
    assert may_hold_secret(text) if kind in SECRETS else may_hold_personal(text)
    assert [text[match.start : match.end] for match in recognise(text)] == [value]
    assert redact(text) == text.replace(value, f"<{kind}-1>")


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless(text: str) -> None:
    assert list(recognise(text)) == []


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("12-01-1999 (naissance), vu le 14-02-2020", ["12-01-1999"]),
        ("du 11 mars 1964 (date de naissance)", ["11 mars 1964"]),
        ("nés les 12/06/2007 et 30/09/2010, vus le 3/3/2020", ["12/06/2007", "30/09/2010"]),
        ("Anniversaire de Bastien : 16 juin 1990", ["16 juin 1990"]),
        ("anniversaire de la victoire : 8 mai 1945", []),
        ("on my birthday, 12 Feb 1996", ["12 Feb 1996"]),
        ("du 21 juillet 2012, date de naissance exacte", ["21 juillet 2012"]),
        ("vu le 3/3/2020, date de naissance : 5/5/1990", ["5/5/1990"]),
        ("nom | né(e) le\nBaudry | 14/02/1975", ["14/02/1975"]),
        ("BDAY:1991-08-05", ["1991-08-05"]),
        ("dob=19840312&since=20200101", ["19840312"]),
        ("Date of birth (dd/mm/yyyy): 05/11/1988", ["05/11/1988"]),
        ("date naiss. 17.09.2003", ["17.09.2003"]),
        ("born on a Tuesday, 8 October 1963", ["8 October 1963"]),
        ("né un mardi 8 octobre 1963", ["8 octobre 1963"]),
        ("Ben (b. 3/5/2016); a. 1/2/2020, b. 3/5/2020", ["3/5/2016"]),
        (
            "nom;naissance;entrée\nBlin;4/12/1983;1/9/2010\nRoy;5/12/1983;1/9/2011\n\nle 7/7/2020;x;y",
            ["4/12/1983", "5/12/1983"],
        ),
        ("| dob | seen |\n|---|---|\n| 1983-12-04 | 2020-01-01 |", ["1983-12-04"]),
        ("nom,entrée\nBlin,1/9/2010", []),
        ("née : 4/12/1983, venue le 1/9/2010", ["4/12/1983"]),
        ("DOB 04-Dec-1983, seen 05-Jan-2020", ["04-Dec-1983"]),
        ("Roy, b. 1983-12-04, hired 2010-09-01", ["1983-12-04"]),
        ("né le 4/12/1983, et mon frère le 5/1/1985, vus le 3/3/2020", ["4/12/1983", "5/1/1985"]),
        ("né le 4/12/1983 et son contrat le 1/9/2010", ["4/12/1983"]),
        ("votre date de naissance ?\n- 09:16 client : 4/12/1983", ["4/12/1983"]),
        ("votre date de naissance ?\n- 09:16 agent : vu le 4/12/2013", []),
        (
            "insert into t (nom, ne_le, vu) values ('Le, B', '1983-12-04', '2020-01-01'),"
            "\n ('Roy', '1985-01-05', '2020-01-02')",
            ["1983-12-04", "1985-01-05"],
        ),
        ("INSERT INTO t (nom, vu) VALUES ('Blin', '2020-01-01')", []),
    ],
)
def test_a_date_is_one_of_birth_only_beside_words_or_in_a_column_that_say_so(text: str, dates: list[str]) -> None:
    assert [match.text for match in recognise(text)] == dates


def test_kinds_limit_what_is_looked_for() -> None:
    text = "alice@laposte.net ou 06 12 34 56 78"
    assert [match.kind for match in recognise(text, ["phone"])] == ["phone"]
    assert redact(text, ["phone"]) == "alice@laposte.net ou <phone-1>"


def test_neighbours_are_all_found() -> None:
    text = "+33 6 12 34 56 78 +33 6 98 76 54 32 0470 12 34 56 0470 98 76 54"
    assert redact(text) == "<phone-1> <phone-2> <phone-3> <phone-4>"
    ibans = "FR76 3000 6000 0112 3456 7890 189 FR76 3000 6000 0112 3456 7890 189"
    assert redact(ibans) == "<iban-1> <iban-1>"


def test_a_value_keeps_its_mark_across_calls() -> None:
    marks: dict[tuple[str, str], str] = {}
    assert redact("a.b@phare.fr, c.d@phare.fr, A.B@phare.fr", marks=marks) == "<email-1>, <email-2>, <email-1>"
    assert redact("c.d@phare.fr, e.f@phare.fr, 06 12 34 56 78", marks=marks) == "<email-2>, <email-3>, <phone-1>"
    assert redact("06.12.34.56.78", marks=marks) == "<phone-1>"


def test_a_mark_that_is_there_is_not_given_again() -> None:
    assert redact("<email-1> et a.b@phare.fr") == "<email-1> et <email-2>"


def test_names_are_whole_words_whatever_case_and_accents() -> None:
    names = listed(["Hélène", "Jean Dupont", "O’Brien", ""])
    text = unicodedata.normalize("NFD", "HELENE, d’Hélène, jean  dupont, o'brien")
    assert [match.kind for match in recognise(text, names=names)] == ["name"] * 4
    assert redact("Hélène", names=names) == "<name-1>"
    for other in ("Jean Martin", "Hélènes", "Marie-Hélène", "Dupont"):
        assert list(recognise(other, names=names)) == []
    assert list(recognise("Hélène")) == []
    assert redact("<name-1>", names=listed(["name"])) == "<name-1>"
    assert may_hold_name("vu par helene", names)
    assert not may_hold_name("vu par marie", names)


def test_names_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "noms.txt"
    path.write_text("\ufeff# équipe\nHélène\n\nJean Dupont\n", encoding="utf-8")
    assert read_names(path) == listed(["Hélène", "Jean Dupont"])
    path.write_text("# personne\n", encoding="utf-8")
    with pytest.raises(UserError, match="no name"):
        read_names(path)
    path.write_bytes(b"H\xe9l\xe8ne")
    with pytest.raises(UserError, match="not UTF-8"):
        read_names(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_names(tmp_path / "absent.txt")


VALUES = [value for _, _, value in PERSONAL_TEXTS] + [text for _, text, _ in SECRET_TEXTS]
PIECES = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from(
        [
            " ",
            "",
            "-",
            ".",
            "@",
            ":",
            "/",
            "+",
            "0",
            "06",
            "(",
            "\u00a0",
            "\n",
            "password: ",
            "token=",
            "://",
            "mdp ",
            " -p",
        ]
    ),
    st.text(max_size=8),
    st.text(alphabet="0123456789 .-+()", max_size=20),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=10).map("".join))
def test_nothing_is_recognised_in_what_was_redacted(text: str) -> None:
    names = listed(["Alice", "card"])
    found = list(recognise(text, names=names))
    assert all(text[match.start : match.end] == match.text and match.kind in KINDS for match in found)
    assert all(left.end <= right.start for left, right in pairwise(found))
    redacted = redact(text, names=names)
    assert list(recognise(redacted, names=names)) == []
    if not found:
        assert redacted == text


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=4).map("".join))
def test_a_text_passed_over_holds_nothing(text: str) -> None:
    kinds = {match.kind for match in recognise(text)}
    assert may_hold_secret(text) or not kinds & set(SECRETS)
    assert may_hold_personal(text) or kinds <= set(SECRETS)


LONG = [
    "dob;1/2/1990\n",
    "1/2/1990 et ",
    "née ",
    "tel ",
    "0123456789",
    "0",
    "@",
    "a.",
    "a@",
    " -",
    "1 ",
    "é",
    "+1 ",
    ":",
    "=",
    "eyJ",
    "://a:",
    "06 12 34 56 78 ",
    "01-",
    "mot de passe ",
    "password is ",
    "mysql -p ",
    "insert into t (dob) values ('",
    "naissance ?\n1/2/1990 ",
    "(at)a.",
    "call 020 ",
]


@pytest.mark.parametrize("piece", LONG)
def test_time_is_linear(piece: str) -> None:
    check_time(piece)
