"""COCO's 80 categories and the English words for them: our own list, made from the category names.

A word stands for one category only. Plurals are derived (`singular`), so only irregular ones appear here.
"""

from __future__ import annotations

SYNONYMS: dict[str, str] = {
    "person": "people, man, men, woman, women, boy, girl, child, children, kid, baby, toddler, infant, lady, gentleman, "
    "guy, adult, teenager, pedestrian, player, skier, snowboarder, surfer, skateboarder, rider, cyclist, biker, driver, "
    "passenger, chef, waiter, policeman, officer, soldier, student, teacher, mother, father, son, daughter, human, crowd",
    "bicycle": "bike, cycle, push bike",
    "car": "automobile, sedan, taxi, cab, suv, minivan, hatchback, convertible, jeep",
    "motorcycle": "motorbike, motor bike, motor cycle, scooter, moped",
    "airplane": "plane, aircraft, jet, aeroplane, air plane, airliner, jetliner, passenger jet, fighter jet",
    "bus": "minibus, trolleybus, coach bus, school bus",
    "train": "locomotive, tram, railcar, passenger train, streetcar, subway train",
    "truck": "lorry, pickup, pickup truck, fire truck, firetruck, tow truck, semi truck",
    "boat": "ship, sailboat, ferry, canoe, kayak, yacht, rowboat, gondola, dinghy, speedboat, motorboat",
    "traffic light": "traffic signal, stop light, stoplight, street light signal, signal light",
    "fire hydrant": "hydrant",
    "stop sign": "",
    "parking meter": "",
    "bench": "pew, park bench",
    "bird": "duck, goose, geese, seagull, gull, pigeon, parrot, owl, eagle, hawk, chicken, rooster, penguin, swan, ostrich, "
    "sparrow, crow, peacock, flamingo, heron",
    "cat": "kitten, kitty",
    "dog": "puppy, puppies, pup, beagle, poodle, bulldog, terrier, retriever, labrador, husky",
    "horse": "pony, ponies, foal, colt, mare, stallion",
    "sheep": "lamb, ram, ewe",
    "cow": "cattle, bull, calf, calves, ox, oxen, heifer, bovine",
    "elephant": "",
    "bear": "polar bear, grizzly, grizzly bear, panda",
    "zebra": "",
    "giraffe": "",
    "backpack": "rucksack, knapsack",
    "umbrella": "parasol",
    "handbag": "purse, hand bag",
    "tie": "necktie, neckties, bow tie, neck tie",
    "suitcase": "suit case, luggage, briefcase",
    "frisbee": "flying disc",
    "skis": "ski",
    "snowboard": "",
    "sports ball": "ball, soccer ball, football, basketball, baseball, tennis ball, volleyball",
    "kite": "",
    "baseball bat": "bat",
    "baseball glove": "baseball mitt, catcher's mitt",
    "skateboard": "skate board, longboard",
    "surfboard": "surf board",
    "tennis racket": "racket, racquet, tennis racquet",
    "bottle": "water bottle, wine bottle, beer bottle",
    "wine glass": "wineglass, champagne glass",
    "cup": "mug, coffee cup, teacup, paper cup",
    "fork": "",
    "knife": "knives, butter knife",
    "spoon": "teaspoon, tablespoon",
    "bowl": "",
    "banana": "",
    "apple": "",
    "sandwich": "burger, hamburger, cheeseburger, panini",
    "orange": "tangerine, clementine",
    "broccoli": "",
    "carrot": "",
    "hot dog": "hotdog",
    "pizza": "",
    "donut": "doughnut",
    "cake": "cupcake, cheesecake",
    "chair": "armchair, stool, seat, recliner, arm chair",
    "couch": "sofa, loveseat, settee",
    "potted plant": "houseplant, house plant, pot plant, plant",
    "bed": "bunk bed",
    "dining table": "table, desk, coffee table, kitchen table, countertop",
    "toilet": "toilet seat, urinal, commode",
    "tv": "tvs, television, tv set, television set, monitor, tv screen",
    "laptop": "laptop computer, notebook computer, computer, macbook",
    "mouse": "computer mouse, mice",
    "remote": "remote control, tv remote, controller, wii remote",
    "keyboard": "computer keyboard",
    "cell phone": "cellphone, mobile phone, smartphone, phone, iphone, telephone, mobile",
    "microwave": "microwave oven",
    "oven": "stove, stove top oven, stovetop",
    "toaster": "toaster oven",
    "sink": "washbasin, wash basin",
    "refrigerator": "fridge",
    "book": "novel, magazine",
    "clock": "alarm clock, wall clock, clock tower",
    "vase": "",
    "scissors": "scissor, pair of scissors",
    "teddy bear": "teddy, stuffed bear",
    "hair drier": "hair dryer, hairdryer, blow dryer",
    "toothbrush": "tooth brush",
}

# Phrases that hold an object's word but no such object.
NO_OBJECT = (
    "train track", "train station", "home plate", "bus stop", "bus station", "horse drawn", "bed sheet", "car park",
    "parking lot", "table cloth", "tennis court", "baseball field", "baseball game", "baseball player", "soccer field",
    "football field", "soccer game", "basketball court", "street light", "table top", "cake stand", "book shelf",
    "orange juice", "apple pie", "carrot cake",
)  # fmt: skip

# "a baby elephant", "an adult giraffe": not people.
YOUNG_OR_ADULT = ("baby", "adult")
ANIMALS = frozenset(["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"])

_KEEP_S = frozenset(
    [
        "bus",
        "skis",
        "scissors",
        "glass",
        "tennis",
        "grass",
        "dress",
        "class",
        "police",
        "brass",
        "canvas",
        "cactus",
        "gas",
        "lens",
    ]
)


def singular(word: str) -> str:
    """A plain rule for English plurals and possessives; irregular ones are in the list of synonyms."""
    word = word.removesuffix("'s")
    if word in _KEEP_S or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes", "buses")):
        return word[:-2]
    return word[:-1]


def _phrases() -> dict[tuple[str, ...], str | None]:
    table: dict[tuple[str, ...], str | None] = {}
    for category, synonyms in SYNONYMS.items():
        for phrase in (category, *filter(None, (part.strip() for part in synonyms.split(",")))):
            key = tuple(singular(word) for word in phrase.split())
            if table.setdefault(key, category) != category:
                raise ValueError(f"{phrase!r} stands for {table[key]!r} and for {category!r}")
    for phrase in NO_OBJECT:
        table[tuple(singular(word) for word in phrase.split())] = None
    return table


# Words of a phrase (singular) -> category, None for a phrase that is no object.
PHRASES = _phrases()
LONGEST = max(len(phrase) for phrase in PHRASES)
