"""First names and surnames that are words, too: such a name counts only where it is written with a capital."""

from __future__ import annotations

# Without accents, as names are compared.
_FRENCH = """
amour ange angelique aube aurore avril baptiste bel belle berger blanc blanche boucher boulanger brun brune camomille
capucine celeste chance charpentier chevalier christian clair claire clemence clement cloche constance constant
coquelicot couturier desire desiree droit eglantine emeraude esperance eve felicite fidele fleur florence forestier
fortune franc gaspard gentil germain grand gros guy innocent iris jade jolie jour julienne juste laurier leger lily
loup lune lys madeleine marguerite marin marine marron martin martinet mercier mercure merveille meunier mimosa
modeste moine moulin narcisse neige noel nuit octave olive olivier page parfait pascal pastel peintre perle petit
picard pie pierre poirier pomme prince princesse prosper prudence prune rayon reine renard robin roche roi romain
romane rose rosier roux royal ruby sage saphir sereine simple soleil tailleur tempere theme tournier trouve urbain
venus vert victoire vigne violette zephyr
"""
_ENGLISH = """
amber angel april archer art ash aster august autumn baker barber basil bay bell bill bishop bond brook brooks brown
buck bud butler candy carol carter cash charity chase chip chuck clay cliff cook cooper coral cross crystal daisy dale
dawn dean destiny dick drew duke earl eden ember faith fern finch fisher flora forest fox frank gardener gene gill
ginger glen grace grant gray green hall harmony harper hazel heather hill holly hope hunt hunter ivy jack jasper jay
jewel josh joy june king lance lane lark laurel long love major marina mark marsh mason may melody mercy miles miller
misty moss nick noble nova opal park parker pat patience pearl penny piper poppy porter price rain raven ray red reed
reef rich river rob rock rod rowan rusty sandy scarlet serenity shepherd sky stone storm summer sunny swan teal temple
terry thyme trinity turner unity verity violet wade walker ward water wells west white will willow winter wood young
"""
NOUNS = frozenset([*_FRENCH.split(), *_ENGLISH.split()])
