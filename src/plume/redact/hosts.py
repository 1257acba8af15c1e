"""Where the name of a host ends when a sentence goes on after its full stop without a space: `gmail.com.merci de`."""

from __future__ import annotations

import re

_COUNTRIES = """
ac ad ae af ag al am ar at au az ba bd be bf bg bh bj bo br by bz ca cd ch ci cl cm cn co cr cu cy cz de dk do dz ec
ee eg es et eu fi fr ga ge gh gl gn gp gr gt hk hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kr kw kz
lb li lk lt lu lv ly ma mc md me mg mk ml mq mt mu mx my nc ne ng nl no np nu nz om pa pe pf ph pk pl pm ps pt py qa
re ro rs ru rw sa se sg si sk sm sn st su sv sy tg th tj tm tn to tr tt tv tw tz ua ug uk us uy uz va ve vn wf ws yt
za zm zw
"""
_OF_THINGS = """
agency academy aero alsace app asia bank biz blog bzh care cat center church city cloud club com coop corsica design
dev digital edu education email events example fitness fm fun gmbh gov group health help hotel house immo inc info
int invalid jobs law legal life link live local ltd mail media mil mobi museum name net network news ngo ong online
org paris photo plus post press pro shop site social software solutions store studio systems team tech tel test tips
tours travel vet wiki wine work works world xyz zone
"""
_TOPS = frozenset([*_COUNTRIES.split(), *_OF_THINGS.split()])
# After these nothing follows but the country of a company: `.com.au`, `.net.nz`.
_ENDINGS = "com net org edu gov example fr be ch de es it eu lu nl ie ca pt uk"
_WORDS_TOO = "am au by ca de do et il im in is it je ma me my ne no om or pa sa se si so st to us va"  # and countries
_ENDING, _WORDS = frozenset(_ENDINGS.split()), frozenset(_WORDS_TOO.split())
_NOWHERE_ELSE = re.compile(
    r"(?:gmail|googlemail|icloud|protonmail|proton|laposte|orange|wanadoo|sfr|free|bbox|aol)\.[a-z]{2,7}", re.I
)


def length_of_host(host: str) -> int:
    """How much of `gmail.com.merci` is a host; all of it where its last part can be a top-level domain."""
    labels = host.lower().split(".")
    last = labels[-1]
    if last in _TOPS and not _is_word_after_all(host, labels):
        return len(host)
    for number in range(1, len(labels) - 1):
        if labels[number] in _ENDING and not (labels[number + 1] in _TOPS and number + 2 < len(labels)):
            return len(".".join(labels[: number + 1]))
    return len(host)


def _is_word_after_all(host: str, labels: list[str]) -> bool:
    """`gmail.com.je`, `phare.fr.me`: no country follows these providers, nor another country."""
    if len(labels) != 3 or labels[2] not in _WORDS:
        return False
    return bool(_NOWHERE_ELSE.match(host)) or (len(labels[1]) == 2 and labels[1] in _ENDING)
