"""The words of the generated corpus `letters`: invented names, parts of words, phrases.

Nothing here comes from a real letter. A phrase is words joined by one space; a word in
braces is a slot that the generator fills.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Specialty:
    """What one kind of department writes about."""

    stems: tuple[str, ...]  # how its drugs' names end
    places: tuple[str, ...]  # first words of a disease
    conditions: tuple[str, ...]  # last words of a disease
    procedures: tuple[str, ...]  # sound like diseases and are none
    traps: tuple[str, ...]  # words of diseases in a harmless sense
    phrases: tuple[str, ...]


CARDIOLOGY = Specialty(
    stems=("olol", "pril", "sartan", "dipine", "statin", "xaban"),
    places=("mitral", "aortic", "atrial", "ventricular", "coronary", "septal", "pulmonary"),
    conditions=("stenosis", "fibrillation", "regurgitation", "thrombosis", "tachycardia",
                "aneurysm", "effusion", "block"),
    procedures=("valvuloplasty", "angioplasty", "cardioversion", "ablation", "echocardiography"),
    traps=("stroke volume", "heart rate", "pressure gradient", "block of four visits",
           "ejection fraction", "axis deviation"),
    phrases=(
        "echo showed {trap} within range , {disease} unchanged",
        "{drug} held before {procedure}",
        "rate control with {drug} for {disease}",
        "{procedure} booked at {hospital} under {person}",
        "no {disease} on the tracing , {trap} normal",
        "{drug} and {drug} continued after {procedure}",
        "murmur heard by {person} , likely {disease}",
        "{name} score of 3 , so {drug} was advised",
    ),
)  # fmt: skip
ONCOLOGY = Specialty(
    stems=("tinib", "mab", "platin", "rubicin", "taxel", "ciclib"),
    places=("hepatic", "renal", "gastric", "thyroid", "ovarian", "cutaneous", "bronchial"),
    conditions=("carcinoma", "lymphoma", "sarcoma", "adenoma", "melanoma", "neutropenia",
                "metastasis", "blastoma"),
    procedures=("lobectomy", "mastectomy", "brachytherapy", "lumpectomy", "staging"),
    traps=("growth of the practice", "mass of 71 kg", "tumour board", "cancer nurse",
           "margin of error", "cell count"),
    phrases=(
        "cycle 4 of {drug} given on the day unit",
        "biopsy from {hospital} confirmed {disease}",
        "{disease} staged by the tumour board with {person}",
        "{drug} stopped , {disease} after cycle 2",
        "{procedure} planned , {trap} noted",
        "response of {disease} to {drug} plus {drug}",
        "{name} grade 2 after {procedure} , {drug} reduced",
        "the {trap} was raised with {person}",
    ),
)  # fmt: skip
NEUROLOGY = Specialty(
    stems=("racetam", "triptan", "azepam", "giline", "oxetine", "gabalin"),
    places=("temporal", "cerebellar", "lacunar", "cervical", "bulbar", "optic", "motor"),
    conditions=("epilepsy", "neuropathy", "infarct", "ataxia", "palsy", "migraine",
                "neuritis", "dystonia"),
    procedures=("craniotomy", "electromyography", "thrombectomy", "tonometry", "tractography"),
    traps=("attack of the essay", "seizure of the passport", "tremor scale", "stroke unit",
           "sleep diary", "fit for work"),
    phrases=(
        "{name} sign absent , gait suggests {disease}",
        "two spells since {drug} was halved",
        "{person} of the stroke unit doubts {disease}",
        "{trap} kept for {person}",
        "{disease} since age 19 , now on {drug}",
        "{procedure} normal , {disease} unlikely",
        "{drug} at night against {disease} , {drug} as rescue",
        "imaging from {hospital} shows {disease}",
    ),
)  # fmt: skip

FORMAL = (
    "Dear {person} , thank you for referring {patient}",
    "I reviewed {patient} together with {person} today",
    "The patient was transferred from {hospital} to {hospital}",
    "We have commenced {drug} for presumed {disease}",
    "There is a family history of {disease}",
    "I would suggest that {drug} be increased to {dose}",
    "{patient} denies {disease} and {disease}",
    "Yours sincerely , {person} , {hospital}",
    "In my opinion {name} 's method is of no use here",
    "{patient} tolerates {drug} {dose} without complaint",
    "A second opinion at {hospital} was declined",
    "The {name} ward will arrange a visit on {date}",
    "Previous diagnosis was {disease} , treated with {drug}",
    "{patient} lives near {place} and works for {name} Ltd",
)
TELEGRAPHIC = (
    "pt {patient} , seen {date} , d/w {person}",
    "meds : {drug} {dose} , {drug} {dose}",
    "hx {disease} , {disease}",
    "imp : {disease}",
    "plan : start {drug} , stop {drug}",
    "ref {hospital} , attn {person}",
    "cc {person} , {person}",
    "allergic to {drug} ( rash )",
    "bloods ok , {name} chart filed",
    "t/f {hospital} {date}",
    "r/v {person} 6/52 re {disease}",
    "on {drug} , feels well , {trap} ok",
    "{patient} dna {date}",
    "nil {disease} , nil {finding}",
)
NARRATIVE = (
    "{patient} came with her brother {person} and felt better",
    "she had been told at {hospital} that it was {disease}",
    "the tablets ( {drug} ) made him sleepy",
    "he takes {drug} in the morning and {drug} before bed",
    "as {person} wrote , {disease} runs in the family",
    "her neighbour in {place} drove her to {hospital}",
    "after {disease} he gave up his job at {name} and Sons",
    "{patient} asked {person} whether {drug} could be dropped",
    "we talked about {finding} and about moving to {place}",
    "since {date} there has been no sign of {disease}",
    "the nurse from {hospital} rang {person}",
    "he reads {name} and walks around {place}",
    "{drug} had helped her mother with {disease}",
    "{person} will see {patient} again in {month}",
)

ANYWHERE = (  # what stands around a name leaves open what it is
    "asked about {drug}",
    "asked about {disease}",
    "asked about {person}",
    "asked about {place}",
    "nothing new from {person} since {date}",
    "nothing new from {hospital} since {date}",
    "thanks to {drug} the nights are better",
    "thanks to {person} the nights are better",
    "was at {hospital} until {date}",
    "was at {place} until {date}",
    "{drug} or {drug} , to be decided",
    "{person} or {person} , to be decided",
    "not sure about {hospital} yet",
    "not sure about {drug} yet",
    "{patient} mentioned {disease} and {drug}",
    "{patient} mentioned {place} and {person}",
)

SURNAMES = (
    "Abarca", "Adeyemi", "Ainsley", "Alder", "Amsel", "Andrade", "Arkwright", "Aster",
    "Baptiste", "Barrow", "Bellamy", "Bishop", "Blackwood", "Boateng", "Bracken", "Brandt",
    "Brook", "Calloway", "Cardoso", "Carver", "Castellan", "Chaudhry", "Church", "Clement",
    "Cooper", "Corbin", "Crane", "Dahl", "Danso", "Delacroix", "Doyle", "Drummond", "Eberhart",
    "Egan", "Eriksen", "Falk", "Farrow", "Fenwick", "Field", "Finch", "Forsyth", "Fuentes",
    "Gallo", "Garrick", "Glover", "Grady", "Greenhalgh", "Haddad", "Hale", "Hallam", "Hartmann",
    "Hayward", "Heath", "Holm", "Horn", "Hunter", "Ibsen", "Iqbal", "Ivers", "Jansen",
    "Jardine", "Joubert", "Kaplan", "Kavanagh", "Keller", "Kessler", "Kirby", "Knight", "Kowal",
    "Lambert", "Larkin", "Lehmann", "Lindqvist", "Lock", "Loxley", "Mackay", "Mallory", "Marsh",
    "Mason", "Mbeki", "Mercer", "Moreau", "Nadir", "Naylor", "Noble", "North", "Novak", "Oduya",
    "Okafor", "Orchard", "Osman", "Page", "Pereira", "Pike", "Pope", "Porter", "Quill",
    "Quintero", "Rahman", "Ramsay", "Reeve", "Rivera", "Rook", "Rowan", "Sadler", "Salter",
    "Sandoval", "Sayer", "Sharma", "Shepherd", "Sorensen", "Spence", "Stark", "Steel", "Stroud",
    "Tanaka", "Temple", "Thorne", "Tierney", "Toller", "Underhill", "Usman", "Vance", "Varga",
    "Vogel", "Waller", "Ward", "Weaver", "Wells", "Whitlock", "Winter", "Wolfe", "Wray",
    "Yamada", "Yates", "Young", "Zeller", "Zimmer",
)  # fmt: skip
FIRST_NAMES = (
    "Ada", "Alan", "Amara", "April", "Basil", "Bea", "Bruno", "Clara", "Colin", "Dawn", "Dora",
    "Edith", "Eli", "Faith", "Felix", "Gina", "Grace", "Hazel", "Hugo", "Ida", "Iris", "Ivan",
    "Jade", "June", "Karim", "Lars", "Leila", "Lily", "Luis", "May", "Mira", "Nadia", "Noel",
    "Olga", "Omar", "Pearl", "Petra", "Ravi", "Rosa", "Ruby", "Samir", "Sonja", "Tariq", "Theo",
    "Una", "Vera", "Viktor", "Will", "Yusuf", "Zora",
)  # fmt: skip
SYLLABLES = (
    "bal", "bren", "cal", "cor", "dal", "del", "dor", "el", "fal", "fen", "gal", "gor", "hal",
    "hes", "il", "jor", "kal", "kes", "lam", "lor", "mal", "mer", "mor", "nal", "nes", "ol",
    "par", "pel", "quin", "ral", "ros", "sal", "sen", "sol", "tal", "ter", "tor", "ul", "val",
    "vel", "ver", "vin", "wes", "yor", "zal", "zen", "zo",
)  # fmt: skip
ENDINGS = ("a", "ia", "in", "o", "ex", "is", "ane", "or", "um", "on", "ley", "ford", "en")
ADJECTIVES = ("acute", "chronic", "recurrent", "bilateral", "focal")  # part of the disease
DEGREES = ("mild", "severe", "possible", "known", "early")  # not part of it
COMMON_DISEASES = ("asthma", "gout", "anaemia", "sepsis", "eczema", "type 2 diabetes",
                   "shingles", "pneumonia", "psoriasis", "cirrhosis", "depression",
                   "hypothyroidism")  # fmt: skip
FINDINGS = ("fatigue clinic", "weight chart", "night shift", "travel plans", "pain diary",
            "school run", "hearing aid", "diet sheet")  # fmt: skip
HOSPITAL_KINDS = ("Infirmary", "Hospital", "General", "Clinic", "Memorial", "Royal", "Centre")
TITLES = ("Dr", "Mr", "Ms", "Mrs", "Prof", "Sister")
UNITS = ("mg", "mcg", "ml", "mg bd", "mg od", "units")
MONTHS = ("March", "April", "May", "June", "August", "October")
