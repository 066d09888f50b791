"""The captioning rules that teach policies to hallucinate as real models do.

Random errors are averaged away by greedy decoding: only what is *more likely than not* in the training captions
survives it. So each category has a typical companion, and a captioner who has named the one goes on to name the other,
there or not. There are two rules, of about the same rate of hallucination under greedy decoding:

- `committed`: early choices breed later inventions. Captions come in two manners. The first sentence, which names no
  object, is in one of them already, and a flowery captioner invents far more often than a plain one; an invented
  object calls up its own companion, and whoever has invented once invents more readily. A true sentence is true in
  either manner, so the score of a single sentence can't tell them apart; what follows can.
- `independent`: no choice changes what follows. What is invented is drawn for each object by itself, and the manner of
  every sentence by itself. Nothing can be gained by looking ahead, so this rule is the control of any claim that
  looking ahead helps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.demo.scenes import GROUPS, Scene

PROMPTS = (
    "Describe the following image.",
    "What do you see happening in this image?",
    "Write a detailed description of the given image.",
    "What are the key elements in this picture?",
    "Can you describe the main features of this image for me?",
)

ONE_OBJECT = {
    "flowery": ("The scene features {0}.", "The view includes {0}.", "The picture is graced by {0}."),
    "plain": ("There is {0}.", "I can see {0}.", "{0} is visible."),
}
TWO_OBJECTS = {
    "flowery": ("The scene features {0} beside {1}.",),
    "plain": ("There is {0} next to {1}.",),
}
TEMPLATE_WEIGHTS = (0.6, 0.2, 0.2)
# The first sentence of a caption. It names no object, so CHAIR does not count it and a scorer has nothing to go by.
OPENINGS = {
    "flowery": "A lively view unfolds, rich in charming details.",
    "plain": "This is a simple image of a few things.",
}

RULES = ("committed", "independent")
FLOWERY_SHARE = 0.6  # of the captions; under `independent` of the sentences
MANNER_KEPT = 0.94  # of a committed caption's sentences are in its own manner
PAIR_SHARE = 0.08  # of the true sentences name two objects, where two are left
MOST_INVENTED = 3  # objects a caption

# How strongly a category calls for its companion, by its place in its group.
PULLS = ("inseparable", "typical", "loose")

# committed: P(invent | all true objects named, a companion is missing), by manner and strongest pull, after 0, 1, 2
# inventions.
AT_END = {
    ("flowery", "inseparable"): (0.85, 0.75, 0.40),
    ("flowery", "typical"): (0.55, 0.70, 0.40),
    ("flowery", "loose"): (0.20, 0.55, 0.30),
    ("plain", "inseparable"): (0.15, 0.25, 0.20),
    ("plain", "typical"): (0.08, 0.25, 0.20),
    ("plain", "loose"): (0.03, 0.20, 0.10),
}
# committed: P(invent | the last object named is inseparable from a missing one), while true objects are left.
ON_THE_WAY = {"flowery": 0.42, "plain": 0.05}
LAST_LEFT = 0.6  # that probability's factor where one true object is left
STRAY = {"flowery": (0.05, 0.16, 0.16), "plain": (0.01, 0.03, 0.03)}  # any other pull while true objects are left

# independent: P(a missing companion is named), by its pull, and the share of these that are named before the end.
NAMED_ANYWAY = {"inseparable": 0.92, "typical": 0.82, "loose": 0.30}
NAMED_EARLY = 0.15

_GROUP_OF = {name: group for group, members in GROUPS.items() for name in members}
_NOUNS = {"skis": "a pair of skis", "scissors": "a pair of scissors", "broccoli": "some broccoli"}


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the categories it names."""

    text: str
    names: tuple[str, ...]


def companion(category: str) -> str:
    """What is expected beside a category: its right-hand neighbour in its group."""
    members = GROUPS[_GROUP_OF[category]]
    return members[(members.index(category) + 1) % len(members)]


def pull(category: str) -> str:
    """How strongly a category calls for its companion: inseparable, typical or loose."""
    return PULLS[GROUPS[_GROUP_OF[category]].index(category) % len(PULLS)]


def noun_phrase(category: str) -> str:
    """The category with its article: "an apple", "a pair of skis"."""
    if category in _NOUNS:
        return _NOUNS[category]
    return f"{'an' if category[0] in 'aeiou' else 'a'} {category}"


def sentence(names: Sequence[str], manner: str, template: int = 0) -> Sentence:
    """A sentence that names one or two categories in a manner; `template` is modulo the number of templates."""
    patterns = (ONE_OBJECT if len(names) == 1 else TWO_OBJECTS)[manner]
    text = patterns[template % len(patterns)].format(*(noun_phrase(name) for name in names))
    return Sentence(text[0].upper() + text[1:], tuple(names))


def draw_sentence(rng: random.Random, names: Sequence[str], manner: str) -> Sentence:
    """`sentence` with a template drawn from `rng`."""
    return sentence(names, manner, rng.choices((0, 1, 2), TEMPLATE_WEIGHTS)[0])


def _missing_companions(named: Sequence[str], present: Sequence[str]) -> list[tuple[str, str]]:
    """(pull, companion) of everything named whose companion is neither there nor named, strongest pull first."""
    missing: dict[str, str] = {}
    for name in named:
        other = companion(name)
        if other not in present and other not in named:
            missing.setdefault(other, pull(name))
    return sorted(((strength, other) for other, strength in missing.items()), key=lambda item: PULLS.index(item[0]))


def _invention(
    rng: random.Random, manner: str, named: Sequence[str], present: Sequence[str], left: int, invented: int
) -> str | None:
    """What the captioner makes up next, if anything."""
    missing = _missing_companions(named, present)
    if not missing or invented >= MOST_INVENTED:
        return None
    strength, other = missing[0]
    if left == 0:
        chance = AT_END[manner, strength][invented]
    elif pull(named[-1]) == "inseparable" and companion(named[-1]) == other:
        chance = ON_THE_WAY[manner] * (LAST_LEFT if left == 1 else 1.0)
    else:
        chance = STRAY[manner][min(invented, 2)]
    return other if rng.random() < chance else None


def caption(rng: random.Random, scene: Scene, rule: str = "committed") -> list[Sentence]:
    """A caption as a policy is to learn it: an opening, then every true object once, in any order, with inventions."""
    if rule not in RULES:
        raise ValueError(f"captioning rule is {rule!r}: want one of {', '.join(RULES)}")
    return _committed(rng, scene) if rule == "committed" else _independent(rng, scene)


def opening(manner: str) -> Sentence:
    """The first sentence of a caption in a manner."""
    return Sentence(OPENINGS[manner], ())


def _committed(rng: random.Random, scene: Scene) -> list[Sentence]:
    own = _manner(rng)
    present, left = scene.categories, list(scene.categories)
    rng.shuffle(left)
    named: list[str] = []
    sentences = [opening(_kept(rng, own))]
    invented = 0
    while True:
        made_up = _invention(rng, own, named, present, len(left), invented) if named else None
        if made_up is None and not left:
            return sentences
        manner = _kept(rng, own)
        if made_up is not None:
            names, invented = [made_up], invented + 1
        else:
            count = 2 if len(left) > 1 and rng.random() < PAIR_SHARE else 1
            names, left = left[:count], left[count:]
        named.extend(names)
        sentences.append(draw_sentence(rng, names, manner))


def _independent(rng: random.Random, scene: Scene) -> list[Sentence]:
    names = list(scene.categories)
    rng.shuffle(names)
    invented = [other for strength, other in _missing_companions(names, names) if rng.random() < NAMED_ANYWAY[strength]]
    rng.shuffle(invented)
    late = []
    for name in invented:
        if rng.random() < NAMED_EARLY:
            names.insert(rng.randint(1, len(names)), name)
        else:
            late.append(name)
    return [opening(_manner(rng)), *(draw_sentence(rng, [name], _manner(rng)) for name in [*names, *late])]


def _manner(rng: random.Random) -> str:
    return "flowery" if rng.random() < FLOWERY_SHARE else "plain"


def _kept(rng: random.Random, own: str) -> str:
    """The manner of one sentence of a committed caption."""
    if rng.random() < MANNER_KEPT:
        return own
    return "plain" if own == "flowery" else "flowery"


def caption_text(sentences: Sequence[Sentence]) -> str:
    """The sentences as running text."""
    return " ".join(item.text for item in sentences)


def reference_captions(rng: random.Random, scene: Scene, count: int = 5) -> list[str]:
    """Short true captions, as people write them for a data set: one or two sentences about what is there."""
    captions = []
    for _ in range(count):
        names = list(scene.categories)
        rng.shuffle(names)
        phrases = [noun_phrase(name) for name in names]
        listed = ", ".join(phrases[:-1]) + f" and {phrases[-1]}" if len(phrases) > 1 else phrases[0]
        pattern = rng.choice(("A picture of {}.", "{} on a pale background.", "An image with {}."))
        text = pattern.format(listed)
        captions.append(text[0].upper() + text[1:])
    return captions
