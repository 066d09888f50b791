"""Trains the tiny scorer as CLIP is trained: on pairs of an image and a sentence that goes with it.

The sentences are what captioners say, inventions included; nothing tells the scorer which of them are true. So it errs as
CLIP does: by what is usually said together, and by what it confuses, in the same way for the same image and object whatever
the words. Its vision tower starts from a pretrained one, as in LiT (arXiv 2111.07991). Sigmoid loss over all pairs of a
batch, as in SigLIP (arXiv 2303.15343), positive and negative pairs weighing the same. A batch holds scenes of GROUPS_A_BATCH
everyday groups, or the group alone would tell a pair.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from tasks.core.demo.captions import RULES, Sentence, caption
from tasks.core.demo.descent import Descent
from tasks.core.demo.scenes import GROUPS, Scene, sample_scene
from tasks.core.demo.scorer_model import TEXT_CONTEXT, build_scorer, model_cfg
from tasks.core.demo.train_vision import pixel_values

if TYPE_CHECKING:
    from open_clip.model import CLIP
    from transformers import CLIPVisionModel, PreTrainedTokenizerFast

LR = 1e-3
GROUPS_A_BATCH = 2


def token_ids(tokenizer: PreTrainedTokenizerFast, sentences: Sequence[Sentence]) -> Tensor:
    """As open_clip's tokenizer does it: int64 [sentences, TEXT_CONTEXT], padded on the right."""
    texts = [item.text for item in sentences]
    return tokenizer(
        texts, return_tensors="pt", max_length=TEXT_CONTEXT, padding="max_length", truncation=True
    ).input_ids


def contrastive_loss(logits: Tensor) -> Tensor:
    """Binary cross-entropy over [B, B] pairs: row i goes with column i; these and the others weigh the same."""
    own = torch.eye(len(logits), dtype=torch.bool)
    losses = functional.binary_cross_entropy_with_logits(logits, own.float(), reduction="none")
    return 0.5 * (losses[own].mean() + losses[~own].mean())


def alike_scenes(rng: random.Random, count: int) -> list[Scene]:
    """`count` scenes of GROUPS_A_BATCH groups."""
    groups = rng.sample(list(GROUPS), GROUPS_A_BATCH)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = sample_scene(rng)
        if scene.group in groups:
            scenes.append(scene)
    return scenes


def train_scorer(
    tower: CLIPVisionModel, tokenizer: PreTrainedTokenizerFast, *, steps: int, batch: int, seed: int
) -> Iterator[tuple[int, float, CLIP]]:
    """Train from `tower` and random text weights, yielding (step, loss, the model) as it goes.

    A pair is a scene with one sentence of a caption of it, by either rule of `captions.py`.
    """
    rng = random.Random(f"contrastive scorer {seed}")

    def draw() -> tuple[list[Scene], list[Sentence]]:
        scenes = alike_scenes(rng, batch)
        return scenes, [rng.choice(caption(rng, scene, rng.choice(RULES))) for scene in scenes]

    return fit_pairs(tower, tokenizer, draw, lambda logits, *_: contrastive_loss(logits), steps=steps, seed=seed)


def fit_pairs(
    tower: CLIPVisionModel,
    tokenizer: PreTrainedTokenizerFast,
    draw: Callable[[], tuple[list[Scene], list[Sentence]]],
    loss_of: Callable[[Tensor, list[Scene], list[Sentence]], Tensor],
    *,
    steps: int,
    seed: int,
) -> Iterator[tuple[int, float, CLIP]]:
    """Train a scorer on all pairs of the scenes and sentences of a batch, yielding (step, loss, the model) as it goes.

    Args:
        tower: where its vision tower starts; the text weights are random.
        tokenizer: of the sentences.
        draw: a batch.
        loss_of: of (logits [scenes, sentences], scenes, sentences).
        steps: batches.
        seed: of the random weights.
    """
    torch.manual_seed(seed)
    model = build_scorer(tower, model_cfg(tower, tokenizer)).train()
    descent = Descent(model.parameters(), lr=LR, steps=steps)
    for step in range(1, steps + 1):
        scenes, sentences = draw()
        images = model.encode_image(pixel_values(scenes), normalize=True)
        texts = model.encode_text(token_ids(tokenizer, sentences), normalize=True)
        loss = loss_of(model.logit_scale.exp() * images @ texts.T + model.logit_bias, scenes, sentences)
        descent.step(loss)
        yield step, loss.item(), model
    model.eval()
