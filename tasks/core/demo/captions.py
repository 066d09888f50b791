"""The captioning rule that teaches the policy to hallucinate as real models do.

Random errors are averaged away by greedy decoding: only what is *more likely than not* in the training captions
survives it. So each category has a typical companion, and a captioner who has named the one goes on to name the other,
there or not. Two things make an early mistake breed later ones:

- an invented object calls up its own companion, and whoever has invented once invents more readily;
- captions come in two manners. A flowery captioner invents far more often than a plain one, and a sentence in the one
  manner makes the next likely to be in the same. A true sentence is true in either, so the score of a single sentence
  can't tell them apart; what follows can.
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

FLOWERY_SHARE = 0.66  # of the captions
MANNER_KEPT = 0.92  # of a caption's sentences are in its own manner
PAIR_SHARE = 0.08  # of the true sentences name two objects, where two are left
MOST_INVENTED = 3  # objects a caption

# How strongly a category calls for its companion, by its place in its group.
PULLS = ("inseparable", "typical", "loose")

# P(invent | all true objects named, a companion is missing), by manner and strongest pull, after 0, 1, 2 inventions.
AT_END = {
    ("flowery", "inseparable"): (0.76, 0.72, 0.40),
    ("flowery", "typical"): (0.40, 0.70, 0.40),
    ("flowery", "loose"): (0.15, 0.55, 0.30),
    ("plain", "inseparable"): (0.26, 0.50, 0.30),
    ("plain", "typical"): (0.15, 0.50, 0.30),
    ("plain", "loose"): (0.05, 0.30, 0.20),
}
# P(invent | the last object named is inseparable from a missing one), while true objects are left.
ON_THE_WAY = {"flowery": 0.42, "plain": 0.10}
LAST_LEFT = 0.6  # that probability's factor where one true object is left
STRAY = {"flowery": (0.04, 0.16, 0.16), "plain": (0.01, 0.05, 0.05)}  # any other pull while true objects are left

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


def caption(rng: random.Random, scene: Scene) -> list[Sentence]:
    """A caption as the policy is to learn it: every true object once, in any order, with inventions."""
    own = "flowery" if rng.random() < FLOWERY_SHARE else "plain"
    present, left = scene.categories, list(scene.categories)
    rng.shuffle(left)
    named: list[str] = []
    sentences: list[Sentence] = []
    invented = 0
    while True:
        made_up = _invention(rng, own, named, present, len(left), invented) if named else None
        if made_up is None and not left:
            return sentences
        manner = own if rng.random() < MANNER_KEPT else ("plain" if own == "flowery" else "flowery")
        if made_up is not None:
            names, invented = [made_up], invented + 1
        else:
            count = 2 if len(left) > 1 and rng.random() < PAIR_SHARE else 1
            names, left = left[:count], left[count:]
        named.extend(names)
        sentences.append(draw_sentence(rng, names, manner))


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
