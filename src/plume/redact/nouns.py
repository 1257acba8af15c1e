"""First names and surnames that are words, too: such a name counts only where it is written with a capital."""

from __future__ import annotations

NOUNS = frozenset(
    # French, without accents
    "aime amour ange angelique aube aurore avril baptiste bel belle benoit berger blanc blanche blondel boucher boulanger "
    "brun brune camomille capucine carole celeste chance charpentier chevalier christian clair claire clemence clement "
    "cloche constant constance coquelicot cordier couturier david desire desiree dieu dominique droit eglantine emeraude "
    "esperance eve fabre faure felicite fidele fleur florence forestier fortune fournier france franc garnier gaspard gentil "
    "germain gilles grand gros guerin guy honore hortense innocent iris jade jean jeanne jolie jour joly jules julienne juste "
    "laurent laurier leger legrand leroy lily lis louis loup lune lys madeleine magali marguerite marin marine marron martin "
    "martinet masson maure mercier mercure merveille meunier michel mimosa modeste moine moreau moulin narcisse neige noel "
    "nicole nuit octave olive olivier oriane page parfait paris pascal pascale pastel patrice paul pauline pelletier perle "
    "perrin petit peintre philippine picard pie pierre poirier pomme prince princesse prosper prudence prune rayon reine "
    "renard robert robin roche roi roland romain romane rose rosier rousseau roux royal ruby sabine sage saphir savoie sereine "
    "serge simple soleil solene sylvestre tailleur tempere theme tournier tristan trouve urbain vallet venus verdier vert "
    "victoire vigne violette vivien yvoire zephyr zoe"
    # English
    " amber angel april archer art ash aster august autumn bailey baker barber basil bay bell bill bishop bond brook brooks "
    "brown bud buck butler candy carol carter cash chance charity chase chip chuck clay cliff cole cook cooper coral cross "
    "crystal daisy dale dawn dean destiny dick drew duke earl eden ember faith fern finch fisher flora forest fox frank "
    "gardener gene gill ginger glen grace grant gray green guy hall harmony harper hazel heather hill holly hope hunt hunter "
    "iris ivy jack jade jasper jay jewel john josh joy june king lance lane lark laurel lily long love luna major marina "
    "mark marsh mason matt may melody mercy miles miller misty moss nick noble nova olive opal page park parker patience pat "
    "pearl penny peter piper poppy porter price prince prudence rain raven ray red reed reef rich river rob robin rock rod "
    "rose rowan ruby rusty sage sandy scarlet serenity shepherd sky smith stone storm summer sunny swan taylor teal temple "
    "terry thyme trinity turner unity verity violet wade walker ward water wells west white will willow winter wood young".split()
)
