"""Trains the oracle: a scorer that is told which sentences are true, the upper bound of what a scorer can do here.

It separates true sentences from invented ones around one threshold shared by all images.

Departs from CLIP's contrastive loss: in a world this small most other images' sentences are true of an image too, and a
search needs a score that means the same for every image. So every (image, sentence) pair of a batch is a yes-or-no
question, as in SigLIP, with the truth known from the scene, and each image brings the inventions a captioner
would make for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from tasks.core.demo.captions import Sentence, companion, draw_sentence, noun_phrase
from tasks.core.demo.scenes import GROUPS, Scene, sample_scene
from tasks.core.demo.train_scorer import fit_pairs
from tasks.core.demo.train_vision import CATEGORIES, presence

if TYPE_CHECKING:
    from open_clip.model import CLIP
    from transformers import CLIPVisionModel, PreTrainedTokenizerFast

MANNERS = ("flowery", "plain")
OTHER_WORDS = ("A photo of {}.", "{} in the picture.", "An image with {}.", "The image shows {}.", "This is {}.")
OTHER_WORDS_SHARE = 0.15
OWN_SHARE = 0.5  # of the loss is on the sentences made for the image itself


def _say(rng: random.Random, names: Sequence[str]) -> Sentence:
    if rng.random() >= OTHER_WORDS_SHARE:
        return draw_sentence(rng, names, rng.choice(MANNERS))
    phrase = " and ".join(noun_phrase(name) for name in names)
    text = rng.choice(OTHER_WORDS).format(phrase)
    return Sentence(text[0].upper() + text[1:], tuple(names))


def sentences_about(rng: random.Random, scene: Scene) -> list[Sentence]:
    """Five for a scene: two true, a typical invention, another absent object, and a pair, true or half true."""
    present = scene.categories
    likely = [name for name in map(companion, present) if name not in present]
    absent = [name for name in GROUPS[scene.group] if name not in present] or [
        name for name in CATEGORIES if name not in present
    ]
    first, second = rng.sample(present, 2)
    invention = rng.choice(likely or absent)
    other = rng.choice(absent) if rng.random() < 0.5 else rng.choice([n for n in CATEGORIES if n not in present])
    pair = [first, second if rng.random() < 0.5 else rng.choice(likely or absent)]
    rng.shuffle(pair)
    return [_say(rng, [first]), _say(rng, [second]), _say(rng, [invention]), _say(rng, [other]), _say(rng, pair)]


def truth(scenes: Sequence[Scene], sentences: Sequence[Sentence]) -> Tensor:
    """Whether every object a sentence names is in a scene: bool [scenes, sentences]."""
    named = torch.zeros(len(sentences), len(CATEGORIES))
    for row, item in enumerate(sentences):
        named[row, [CATEGORIES.index(name) for name in item.names]] = 1.0
    return presence(scenes).float() @ named.T == named.sum(dim=1)


def pair_loss(logits: Tensor, true: Tensor, per_image: int) -> Tensor:
    """Binary cross-entropy over [B, B * per_image] pairs, true and false pairs weighing the same.

    Sentence `j` was made for image `j // per_image`; those pairs make up OWN_SHARE of the loss.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, true.float(), reduction="none")
    own = torch.eye(len(logits), dtype=torch.bool).repeat_interleave(per_image, dim=1)
    total = losses.new_zeros(())
    for where, share in ((own, OWN_SHARE), (~own, 1 - OWN_SHARE)):
        total = total + share * 0.5 * (losses[where & true].mean() + losses[where & ~true].mean())
    return total


def train_oracle(
    tower: CLIPVisionModel, tokenizer: PreTrainedTokenizerFast, *, steps: int, batch: int, seed: int
) -> Iterator[tuple[int, float, CLIP]]:
    """Train from `tower` and random text weights, yielding (step, loss, the model) as it goes."""
    rng = random.Random(f"oracle {seed}")

    def draw() -> tuple[list[Scene], list[Sentence]]:
        scenes = [sample_scene(rng) for _ in range(batch)]
        return scenes, [item for scene in scenes for item in sentences_about(rng, scene)]

    def loss_of(logits: Tensor, scenes: list[Scene], sentences: list[Sentence]) -> Tensor:
        return pair_loss(logits, truth(scenes, sentences), len(sentences) // batch)

    return fit_pairs(tower, tokenizer, draw, loss_of, steps=steps, seed=seed)
