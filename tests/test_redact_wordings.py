"""The many wordings in which a value is given, each with what only looks like it; and time."""

import time

import pytest

from plume.redact import PERSONAL, SECRETS, may_hold_personal, may_hold_secret, recognise

HEX = "a8f5f167f44f4964e6c998dee827110c"
LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0fG3hJ6"
UUID = "26b72264-f1b0-4ee8-8a2e-52776e2051cc"

# Each value stands between ‹ and ›.
PASSWORDS = """
le mdp du wifi c'est ‹Tern4821kelp›
mdp wifi ‹galerne38›
mdp ‹Metz-Sablon57!›
Wifi Kelp_5G, mot de passe ‹galerne38tern›
SSID: Kelp_5G / Key: ‹galerne38tern›
Wifi: Kelp_5G / ‹galerne38tern›
réseau : Livebox-AB12¶clé de sécurité : ‹7F3A9C2E4B6D›
clé WPA2 : ‹7F3A9C2E4B6D›
identifiants : marie.blin / ‹Tern4821›
accès VPN : mblin / ‹Tern4821›
login: kirsty¶Password: ‹cloudberry›
"user": "kirsty", "password": "‹Cloudberry›"
answered on the port with password ‹raspberry314› until noon
I used ‹hunter2024› as my password
je mets toujours ‹Azerty2024› comme mot de passe
password changed from ‹Kelp88tern› to ‹Tern88kelp›
the password should be ‹Kelp88tern›
the password (which is ‹Kelp88tern›) fails
Password (temporary): ‹Kelp88tern›
my password is "‹sunflower›"
What's the wifi password?¶Kim: ‹galerne38tern›
C'est quoi le mdp ?¶- c'est ‹galerne38tern›
Password ..... ‹Kelp88tern›
Password:¶  ‹Kelp88tern›
| Password | ‹Kelp88tern› |
user,password¶bob,‹Kelp88tern›
db_password    = "‹Osprey-88-lantern›"
SMTP_PASSWORD  =  "‹sunflower›"
DB_PASS = ‹sunflower›
smtpPass: '‹sunflower88›'
connect(user="app", password="‹sunflower›")
<password>‹Kelp88tern›</password>
<add key="Password" value="‹Kelp88tern›"/>
passphrase : "‹trois chats sur un mur›"
phrase de passe : « ‹le chat dort au soleil› »
mongosh -u root -p ‹Kelp88tern›
net use Z: /user:bob ‹Kelp88tern›
tool --db-password ‹Kelp88tern›
echo ‹Kelp88tern› | sudo -S ls
$ echo $DB_PASSWORD¶‹Kelp88!tern›
the pin for dad's phone is ‹7319› dont tell him
the PIN, she gave it without me asking, ‹2580›.
le code PIN de la carte SIM de secours c'est ‹4096›
PIN code ‹7391›
digicode : ‹A4821›
the door code is ‹C1590Y› (side entrance only)
The office alarm code has been changed to ‹7305› following the incident
Mon mot de passe était « ‹Compta.2024!› » et il est verrouillé
code du portail : ‹4821›
le code de l'alarme est ‹5820›
the passcode is ‹482913›
"""
KEYS = f"""
Ocp-Apim-Subscription-Key: ‹{HEX}›
openaiApiKey: '‹{LETTERS}›'
MAPS_KEY=‹{LETTERS}›
clé Mapbox : ‹{HEX}›
ma clé API c'est ‹{HEX}›
‹{HEX}› is the api key
client = Client(sid, "‹{HEX}›")  # auth token
API key:¶‹{HEX}›
| API key | ‹{HEX}› |
$ echo $DEEPL_AUTH_KEY¶‹{UUID}:fx›
token: ‹qqi-x8PikL2t_yiRbiMb›
https://‹{HEX}›@o1.ingest.sentry.io/1
"""
EMAILS = """
reach me at ‹ingrid.halvorsen at outlook dot com›.
mon épouse : ‹mireille.jourdan arobase neuf.fr›
‹jean point dupont arobase orange point fr›
my email is ‹jaz at gmail dot com›
‹jean.dupont chez gmail point com›
‹jean.dupont (a) orange.fr›
‹jean.dupont{at}orange.fr›
‹jean.dupont @ orange.fr›
‹jean.dupont at orange.fr›
?email=‹jean.dupont%40orange.fr›&x=1
‹jean.dupont&#64;orange.fr›
"""
PHONES = """
id,dob,mobile¶1,17/02,‹07488 900 317›
name;portable¶Blin;‹0151 2345 8967›
composez le ‹01 99 00 77 19› 24h/24
‹02‑61‑91‑31‑74›
‹06–39–98–31–74›
my email is above,number ‹07700900093›.pls
my number is ‹2125550183›
votre numéro : ‹0151 2345 8967›
Phone......... ‹0151 2345 8967›
joindre ma voisine au ‹655 123 456›
‹0475/12.34.56›
tel ‹33639981234›
https://wa.me/‹33639981234›
‹011 44 20 7946 0958›
out ‹08081 570 123› 12s
"""
NUMBERS = """
Visa ‹4111 11111111 1111›
the Diners is ‹3056 930902 5904›
card number: ‹41111111 11111111›
IBAN : ‹FR76¶  3000 6000 0112 3456 7890 189›
‹FR76.3000.6000.0112.3456.7890.189›
‹1 85 05 78 006 084 (91›)
‹1‑85‑05‑78‑006‑084‑91›
"""
BIRTHS = """
shows my date of birth as ‹12/06/1984› but
His date of birth on it is ‹3rd May, 1931› - can I
Spouse's date of birth ............ ‹01/14/1960›
<label>Date de naissance</label> <input name="x" value="‹1973-04-21›">
<input name="dob" value="‹1973-04-21›">
<birthDate>‹1984-03-12›</birthDate>
"birthDate": "‹1984-03-12›T00:00:00Z"
{"field": "date_of_birth", "value": "‹1984-03-12›"}
votre date de naissance pour vérification ?¶— Le ‹5 juin 1959›.
When were you born?¶Kim: it's ‹12 March 1984›
Pour ton anniv le ‹13 avril 1999›
S21.G00.30.006,'‹16021984›'
né à Brest (29) le ‹12 mars 1984›
lieu et date de naissance : Brest, le ‹12/03/1984›
born in Leeds, ‹12 March 1984›
DOB: ‹12MAR1984›
born ‹12 March '84›
né(e) le : ‹12 / 03 / 1984›
DOB - ‹12‑03‑1984›
âge : 41, né ‹12/03/1984›
naiss. ‹12/03/1984›
patient_dob: ‹1984-03-12›
| DOB | ‹12/03/1984› |
‹12/03/1984› is my date of birth
"""
HARMLESS = f"""
mdp oublié, mdp perdu, mdp du serveur12
le mot de passe est incorrect; mot de passe : obligatoire
the password is "incorrect"; "password": "required"
def f(user: str, password: str): connect(user=user, password=password)
{{ username: dbUser, password: dbSecret }}
"username": "string",¶"password": "string"
username: string¶password: string
DB_PASSWORD=required; PASSWORD = "changeme"
<label>Password</label><input type="password" name="pwd" placeholder="Mot de passe">
I use LastPass2024 as my password manager
password | sha256sum | cut -c1-10; $password | md5sum
passphrase: "Enter your passphrase here please"; password: "Too short, try again"
wifi : pas de réseau¶clé : chez le gardien
réseau : 192.168.1.0/24¶clé USB : 64Go
login: 2024-11-05T10:30:45Z; accès : bâtiment B/escalier12b
Connexion entrante depuis fe80::4c1b:88ff:fe21:7a05
echo hello123 | sudo tee /etc/x
the pin on page 1234; my PIN for the card ending 4183; PIN bloqué depuis 2019
GPIO pin 1234; ping 1234; PIN: 4 digits; code PIN : 1234
code promo : NOEL2024; le code d'accès sera envoyé le 12/03/2024
code postal 75011, code INSEE 29019, votre code est 448120
meet me at phare.fr; he works at amazon dot com; look at the dot com bubble
Rendez-vous chez Marie point de départ; il est chez orange point fr
choose (a) phare.fr or (b) goemon.fr; see f(a) b.txt
order number 07700900093, facture n° 07700900093, ticket number 07700900123
numéro de dossier 0151 2345 8967; the number 2125550183 came up
phone,model¶iPhone,12345678901
From New York do I dial 011 353 87 and so on?
order 4111-11111111-1111
cartes : 4111 1111111 1112
FR76 3000¶6000 0112 3456 7890 188
date of birth corrected on 12/03/2024; birthday party on 12/03/2024
acte de naissance du 12/03/2024; Contrat signé le 02/02/2015
signé à Brest (29) le 12 mars 1984
la naissance d’une idée, le 3 mai 2024
date of birth must be before 12/03/2006
né en 1984, arrivé le 12/03/2010
key: {HEX}; "cache_key": "{HEX}"; PRIMARY_KEY={HEX}
token = MyTokenizerForFrench2024; token: AccessTokenProviderFactory2
https://lighthouse-museum-2024@phare.fr/x; ssh://687fb701029421ae5549d998@phare.fr
x_NRC @ x_NRC.mT; https://<user>:<password>@proxy-host2"
"""


def lines(*texts: str) -> list[str]:
    return [line.replace("¶", "\n") for text in texts for line in text.strip().split("\n")]


def found_in(marked: str) -> str:
    """The text with what is recognised in it between ‹ and ›, in place of what stands between them now."""
    shown = text = marked.replace("‹", "").replace("›", "")
    for match in reversed(list(recognise(text))):
        shown = f"{shown[: match.start]}‹{match.text}›{shown[match.end :]}"
    return shown


@pytest.mark.parametrize("marked", lines(PASSWORDS, KEYS, EMAILS, PHONES, NUMBERS, BIRTHS))
def test_a_value_is_found_however_it_is_given(marked: str) -> None:
    assert found_in(marked) == marked
    text = marked.replace("‹", "").replace("›", "")
    found = recognise(text)
    kinds = {match.kind for match in found}
    assert may_hold_secret(text) or not kinds & set(SECRETS)
    assert may_hold_personal(text) or not kinds & set(PERSONAL)


@pytest.mark.parametrize("text", lines(HARMLESS))
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert list(recognise(text)) == []


def test_a_date_with_the_year_and_month_of_a_nir_beside_it_is_one_of_birth() -> None:
    row = '"2 69 05 49 588 157 80","{}","2001-05-15"'
    for date in ("1969-05-15", "15/05/1969", "15051969"):
        assert [match.text for match in recognise(row.format(date))] == ["2 69 05 49 588 157 80", date]
    assert [match.kind for match in recognise(row.format("1969-06-15"))] == ["nir"]
    assert [match.kind for match in recognise(row.format("x" * 300 + " 1969-05-15"))] == ["nir"]


LONG = [
    "wifi : a\n",
    "pin for ",
    "password for the ",
    "user: a\npassword: ",
    'mot de passe : "a ',
    "change the password to ",
    "seed phrase ",
    "identifiants : a / ",
    "zip -P ",
    "echo secret\n",
    "a at b dot ",
    "a%40b.",
    "chez ",
    "<input name='dob' value='",
    "date de naissance ?\n— le ",
    "née (29) ",
    "3 mai 19 ",
    "2 69 05 49 588 157 80 1969-05-15 ",
    "1984-03-12,",
    "visa 41 ",
    "FR76\n",
    "phone,a\n1,2\n",
    "my number is 07 ",
    "joindre a b c ",
    "KEY=",
    "A_KEY=",
    "token a ",
    "aB3dE6gH9jK2mN5p is ",
    "-a_",
    "a@gmail.com.",
    'nom;"',
    'dob;a\n"a;"";',
    "Nom   DOB   a\n",
    "state your name and date of birth.\nAnn ",
    "name, date of birth ?\nann ",
    "password so it's ",
    "password - ",
    "mot de passe : Kelp88tern, ",
    "user bob, pass ",
    "log in as bob with ",
    "wifi la clé c'est ",
    "la clé : aaaaaa b ",
    "password ?\na / ",
    "my Stripe key ",
    "key_a_b_",
    "phone number?\nBob: 2 ",
    "phone (a) ",
    "code porte , ",
    "a@ gmail.",
    "0639981234/",
    "password=a&b=",
    '\\"password\\": \\"',
]


def check_time(piece: str) -> None:
    """Of 100,000 characters anything quadratic would take minutes; CPU time, for busy machines."""
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    list(recognise(text))
    may_hold_personal(text)
    may_hold_secret(text)
    assert time.process_time() - started < 3


@pytest.mark.parametrize("piece", LONG)
def test_time_is_linear(piece: str) -> None:
    check_time(piece)
