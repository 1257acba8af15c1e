"""Further wordings and layouts in which values are given: chats, forms, transcripts, logs; and what looks like them."""

import pytest

from plume.redact import recognise
from test_redact_wordings import HEX, LETTERS, UUID, found_in, lines

GIVEN = f"""
my email is ‹ngozi.ibekwe01@gmail.com›.please reply
facture à ‹garage76@free.fr›.merci d'avance
write to ‹bob.tern@yahoo.co.uk›.pls hurry
c'est ‹lea.goemon@gmail.com›.je suis dispo demain
‹lea.goemon@orange.fr›.Mon numéro suit
my mail ‹bob.tern@outlook.com›.thanks.
mail ‹lea.goemon@phare.example›.merci
E-mail:‹lea.goemon@phare.bzh›/tél:‹06 39 98 12 34›
mailto:‹lea.goemon@phare.fr›?subject=Bonjour
From: Léa Goémon <‹lea.goemon@phare.fr›>
‹lea.goemon@phare.fr›;‹bob@phare.fr›
contact="‹lea.goemon@phare.fr›",actif
lea.goemon AT phare.fr ou ‹lea.goemon@phare.fr›!!
mon mail c’est ‹lea-goemon_29@hotmail.fr›
mon adresse : ‹lea.goemon arobase gmail point com›, merci
it's ‹bob dot tern at gmail dot com›
Contact: ‹hamish (dot) tern (at) gmail (dot) com›
it is ‹bob_tern at yahoo dot co dot uk›
user=‹bob.tern@phare.io› ip=10.0.0.1
{{"to":["‹bob.tern@phare.io›"]}}
mon 06 : ‹06 39 98 12 34›
joignable au ‹0639981234› après 18h
Tel: ‹+33(0)639981234›
appelle moi au ‹06 39 98 12 34› stp
mon num c ‹0639981234›
tél. dom. ‹01.99.00.12.34› / port. ‹06.39.98.12.34›
my cell's ‹(415) 555-0132›
ring me on ‹07700 900 123›
text ‹415-555-0132› when outside
Mobile No: ‹07700900123›
emergency contact: Ann ‹415.555.0132›
WhatsApp ‹+33 6 39 98 12 34›
What's your phone number?¶Bob: ‹2125550183›
Votre numéro de portable ?¶— ‹06 39 98 12 34›
Best number to reach you?¶‹(415) 555-0132›
"phone": "‹+14155550132›"
"telephone": ‹33639981234›
fax ‹01 99 00 12 34›
TEL;TYPE=CELL:‹+33639981234›
numéro de téléphone du père : ‹06-39-98-12-34›
Phone (home): ‹2125550183›
Téléphone (domicile) : ‹0199001234›
Witness, state your name and date of birth.¶Bob Tern. ‹June 8th, 1970›.
Nom, prénom et date de naissance ?¶Goémon Léa, ‹12/03/1984›
Can you confirm your full name and date of birth?¶Sure, it's Bob Tern, ‹8 June 1970›
Merci d'indiquer votre date de naissance.¶> ‹12/03/1984›
Agent: Please give me your DOB.¶Caller: ‹06/08/1970›
name,dob¶"Tern, Bob",‹11.04.1966›
nom;naissance¶"Goémon; Léa";‹11/04/1966›
Je suis né le ‹3 juin 1975› à Brest
Léa Goémon (née le ‹12.03.1984›)
Verified by: date of birth (‹3 Feb 1982›) and postcode
Léa Goémon, née Kerleo le ‹12/03/1984›
Bob Tern (born ‹8 June 1970›)
Enfant : Léa, née ‹12/03/2016›
d.o.b. ‹08/06/70›
DOB ‹08-JUN-1970›
Geburtsdatum: ‹12.03.1984›
my birthday is ‹June 8, 1970›
my bday's ‹6/8/1970›
je fête mon anniversaire le ‹12 mars 1984›
Assuré(e) : Léa Goémon - Date de naissance (JJ/MM/AAAA) : ‹12/03/1984›
Born: ‹1970-06-08›
date_naissance=‹1984-03-12›
"dob":"‹19840312›"
BDAY:‹19700608›
Nom       Né(e) le      Classe¶Goémon    ‹12/03/2012›    6e B
Patient: Bob Tern, DOB ‹6/8/1970›, MRN 448120
Turns 40 on paper: birth date given as ‹June 8, 1970›.
when is your birthday?¶‹8 June 1970›
tu es née quand ?¶le ‹12 mars 1984›
Temporary password - ‹Zx84-hollyhock›
Mot de passe provisoire – ‹Goemon-8412›
I wrote down my Netflix password so I would not lose it again lol, it's "‹popcorn4Dinner›", ok?
la clé c'est ‹jazz-et-crepes› pour le réseau wifi
— Le code du wifi ?¶— Réseau « MJC », la clé c'est ‹jazz-et-crepes›
wifi : MJC_Public, la clé est ‹galerne38tern›
wifi network is Kelp and the key is ‹tern-and-kelp›
wifi: Kelp_5G / password: ‹bananarama›
Your temporary password is: ‹Zx84hollyhock›
Votre mot de passe temporaire : ‹Zx84hollyhock›
pw = ‹Kelp88tern›
pass: ‹Kelp88tern›
mdp → ‹Kelp88tern›
mdp=‹Kelp88tern›
MDP : "‹Kelp88tern›"
le mot de passe, c'est ‹Kelp88tern›
mot de passe (provisoire) : ‹Kelp88tern›
mon mot de passe actuel ‹Kelp88tern!› ne marche plus
it won't accept ‹Kelp88tern!› as the password
What's your username and password?¶bob / ‹Kelp88tern›
user bob, pass ‹Kelp88tern›
log in as bob with ‹Kelp88!tern›
PASSWORD ‹Kelp88tern›
admin password set to ‹Kelp88tern›
I changed the password to ‹Kelp88tern› yesterday
new password: ‹Kelp88tern› old password: ‹Tern88kelp›
Ancien mot de passe : ‹Kelp88tern›, nouveau : ‹Tern88kelp›
my pin's ‹7319›
my PIN number is ‹7319›, card blocked
le code de ma carte est ‹7319›
code de carte bleue : ‹7319›
code confidentiel ‹7319›
code d'entrée : ‹48B12›
Digicode de l'immeuble ‹A4821›
the gate code's ‹4821#›
code du cadenas c'est ‹4821›
code parental : ‹7319›
code du coffre ‹482193›
SIM PIN ‹7319›, PUK ‹48219375›
mot de passe de session : ‹Marée-haute-1984›
mot de passe : ‹Cr0zon#29›
ftp: bob@phare / mot de passe ‹Cr0zon#29›
spring.datasource.password=‹Kelp88tern›
  password: ‹Kelp88tern›
"pwd":"‹Kelp88tern›"
ansible_become_pass: ‹Kelp88tern›
POSTGRES_PASSWORD: ‹Kelp88tern›
--password=‹Kelp88tern›
our Stripe key is ‹{LETTERS}›
x-api-key: ‹{HEX}›
export OPENAI_API_KEY=‹{LETTERS}›
api key - ‹{HEX}›
clé API – ‹{HEX}›
la clé d'API est la suivante : ‹{HEX}›
here's the token: ‹{LETTERS}›
token ‹{LETTERS}›
"access_token":"‹{LETTERS}›"
SECRET_KEY = '‹{LETTERS}›'
JWT_SECRET=‹{HEX}›
signing secret ‹{HEX}›
client_secret=‹{LETTERS}›
Authorization: Token ‹{HEX}›
const apiKey = "‹{HEX}›"
webhook secret: ‹{HEX}›
{{"body": "{{\\"password\\": \\"‹Kelp88tern›\\", \\"dob\\": \\"‹1984-03-12›\\"}}", n
log: {{\\"phone\\": \\"‹2125550183›\\"}} end
payload={{\\"email\\":\\"‹bob.tern@phare.io›\\",\\"api_key\\":\\"‹{HEX}›\\"}}
2024-05-06 12:00:01 INFO user=‹bob.tern@phare.io› pwd=‹Kelp88tern› from 10.0.0.3
POST /login?user=bob&password=‹Kelp88tern›&next=/
password%3D‹Kelp88tern›
set PASSWORD ‹Kelp88tern›
requirepass ‹Kelp88tern›
bob's password is ‹Kelp88tern›.
His password's ‹Kelp88tern›
pls use the following password: ‹Kelp88tern›
Voici mes identifiants : login bob, mot de passe ‹Kelp88tern›
voici le mot de passe que j'utilise partout : ‹azerty1984›
j'ai mis ‹Kelp88tern› en mot de passe
mon mdp est ‹soleil1984›, je crois
Passwort: ‹Kelp88tern›
contraseña: ‹Kelp88tern›
use ‹Kelp88tern› as password
Set the root password to "‹Kelp88tern›".
the password for the zip is ‹Kelp88tern›
the zip file's password: ‹Kelp88tern›
zip password ‹Kelp88tern›
It's protected, password ‹Kelp88tern›
Passcode: ‹482193›
Meeting ID: 812 3456 7890 Passcode: ‹482193›
Code d'accès à la réunion : ‹482193›
Code secret : ‹4821›
mon code pin c'est ‹4821›
le code du téléphone de maman est ‹4821›
le code de déverrouillage : ‹4821›
phone unlock code ‹4821›
tablet passcode is ‹4821›
iPad code: ‹4821›
l'alarme : code ‹4821›
boîte à clés, code ‹4821›
key box code is ‹4821›
lockbox ‹4821› by the door
interphone code ‹48B1›
Portail : ‹4821A›
code porte immeuble ‹48A21›
voicemail PIN: ‹4821›
PIN=‹4821›
"pin": "‹4821›"
"pin": ‹4821›,
pin_code: ‹4821›
user_pin = ‹4821›
mon code carte vitale? non: code CB ‹4821›
debit card pin ‹4821›
my debit card's PIN is ‹4821›
What is your PIN?¶Bob: ‹4821›
Votre code PIN ?¶- ‹4821›
api key is ‹{HEX}› btw
the api_key param is '‹{HEX}›'
X-Auth-Token: ‹{HEX}›
Stripe key ‹{HEX}›
la clé Stripe : ‹{HEX}›
Clé secrète - ‹{HEX}›
private key: 0x‹{HEX}›
voici mon token : ‹{HEX}›
mon token github c'est ‹{LETTERS}›
notre jeton d'accès est ‹{HEX}›
token=‹{HEX}›;
Token (read-only): ‹{HEX}›
setx API_TOKEN ‹{HEX}›
AccountKey=‹{LETTERS}›;
secret: ‹JBSWY3DPEHPK3PXPJBSWY3DP›
Date of birth (DD/MM/YYYY)¶‹12/03/1984›
Date de naissance¶‹12/03/1984›
DOB¶‹06/08/1970›
Né le¶‹12 mars 1984›
Date of Birth*¶¶‹06/08/1970›
Q: DOB?¶A: ‹06/08/1970›
A. My date of birth is ‹June 8, 1970›.
Birthdate (mm/dd/yyyy): ‹06/08/1970›
dob: ‹8th of June 1970›
Child's name: Léa / DOB: ‹06/08/2015›
Léa, née le ‹12/03/2012›, et Tom, né le ‹14/05/2015›
nés le ‹12/03/2012› et le ‹14/05/2015›
I'm born ‹06/08/1970›
She was born, I believe, on ‹June 8, 1970›
birthday: ‹June 8th 1970›
Birth: ‹8 June 1970›
DOB/Sex: ‹06/08/1970› M
DOB: ‹Jun 8, 1970›
née Kerleo, le ‹12 mars 1984› à Brest
patient né le ‹12-03-84›
<td>Date de naissance</td><td>‹12/03/1984›</td>
**Date of birth:** ‹06/08/1970›
- Naissance : ‹12/03/1984›
Naissance le ‹12/03/1984› à Brest
DDN=‹12031984›
ddn ‹12/03/84›
Sexe : F – Née le : ‹12/03/1984› – Nationalité : française
birth_date,‹1984-03-12›
WHERE birth_date = '‹1984-03-12›'
Call ‹415.555.0132› x204
Appelez-moi : ‹0639981234›.
n° de portable ‹06 39 98 12 34›
GSM ‹0470 12 34 56›
‹+33 6 39 98 12 34› / ‹+33 1 99 00 12 34›
tel:‹+33639981234›
‹06 39 98 12 34› ou 07.00
T: ‹020 7946 0123›
M ‹07700 900123›
D: ‹+44 20 7946 0123›
my mobile's ‹07700900123›
num : ‹0639981234›
Numéro : ‹06-39-98-12-34›
phone_number=‹0639981234›
Mme Blin ‹06.39.98.12.34›, M. Tern ‹06.39.98.43.21›
‹0639981234›/‹0199001234›
‹06 39 98 12 34›.
‹Bob.Tern@Phare.IO›
Bob Tern [mailto:‹bob.tern@phare.io›]
email=‹bob.tern+shop@phare.io›
‹bob.tern@phare.io›, ‹lea@phare.bzh›
mail:‹bob.tern@phare.io›.
‹lea.goemon[at]phare[dot]fr›
‹lea.goemon(at)phare(dot)fr›
‹lea.goemon @gmail.com›
‹lea.goemon@ gmail.com›
"""
HARMLESS = f"""
"private_key_id": "{HEX}"
secret_name_id={HEX}
"api_key_id": "{HEX}"
"token_id": "{UUID}"
"keyId": "{HEX}"
secretArn = {HEX}
token_hash: {HEX}
password - 12 characters at least
Password - see the note of 12/03/2024
Mot de passe – oublié
the password policy changed in 2024, it's "strict"
the password is wrong, it's 2024 and it still fails
la clé c'est de travailler porte-à-porte
wifi en panne, la clé c'est la patience
le wifi du train : la clé du succès est peut-être ailleurs
Please confirm your date of birth.¶Bob: I booked for June 8th, 2024.
Date de naissance ?¶Je ne sais pas. Rendez-vous le 12/03/2024
name,start¶"Tern, Bob",11.04.2016
nom;date¶"Goémon; Léa";11/04/1966
Nom       Entrée        Classe¶Goémon    12/03/2012    6e B
visit www.phare.com.please note
order 2125550183 shipped
What's your order number?¶Bob: 2125550183
le code de la route de 2024, article 4821
code article 4821, code client 7319, code APE 6201
error code 4821, status code 2048, zip code 90210
my verification code expired after 10 minutes
pass 2024 for the museum; user bob, pass rate 98
OTP 26.2 and Erlang/OTP 25
product key: the 12345 answers
the key is to listen; the token is valid until 2024
clé de répartition : 1234567890123456
date naiss : inconnue; DOB unknown; 120384
he was born at 12/03 Main Street
mot de passe actuel ne marche plus
password - Optional - 2024-05-06
login with bob and password2 fields
log in as bob with Windows11 or Ubuntu22
accept sha256 as the password hash
"public_key": "{HEX}"
a @ b
commit {HEX} - key refactoring
our new product key is 12345
the OpenAI key is missing
GitHub token is required
phone number?¶I have 1234567890 rows in the table
What's your number?¶3 please
Nom   Prénom   Code¶Blin  Léa  29019
code client - 48213
phone code: 0033
iPhone code 0x80070005
garage code review 2024
the building code 2018 applies
building code 2021 edition
tablet code : 12 comprimés
portable code 2345
portail : 2024
connect as root with Terraform1.5
log in as admin with OAuth2
user guide pass 3 of 10: phase2build
wifi 6E, code WPA3-Enterprise-mode
le réseau est lent ; la clé est peut-être-là
clé : valeur par défaut du réseau
Please give your date of birth.¶Order shipped 12/03/2024
Name and date of birth are required.¶Meeting on 12/03/2024
Indiquez votre date de naissance.¶Paris, 12 mars 2024
my birth: 2024 plans
le nouveau est iphone15pro et le mot de passe arrive
password was wrong, it was 2fa2024
"""


@pytest.mark.parametrize("marked", lines(GIVEN))
def test_a_value_is_found_in_further_wordings(marked: str) -> None:
    assert found_in(marked) == marked


@pytest.mark.parametrize("text", lines(HARMLESS))
def test_what_only_looks_like_one_is_left_there_too(text: str) -> None:
    assert list(recognise(text)) == []
