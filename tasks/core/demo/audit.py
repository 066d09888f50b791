"""Measures a trained pair of demo models on new scenes: does the policy hallucinate enough, and can the scorer detect it?

A guided search is as good as its scorer within one image on the policy's own sentences, so that is what is measured,
not the scorer on sentences of its own training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from tasks.core.demo.captions import PROMPTS
from tasks.core.demo.measure import named_categories, split_sentences
from tasks.core.demo.scenes import Scene, draw_scene
from tasks.core.metrics import auc

if TYPE_CHECKING:
    from PIL import Image
    from transformers.processing_utils import ProcessorMixin

ScoreSentences = Callable[[list["Image.Image"], list[str], list[int]], list[float]]
MAX_TOKENS = 100  # new tokens a caption
BATCH = 100  # answers at once
KEPT = 0.98  # share of true sentences the reported threshold keeps


class Separation(NamedTuple):
    """How well a score separates a policy's true sentences from its invented ones."""

    within_image_auc: float  # mean over images that have both kinds
    pooled_auc: float  # one threshold for all images
    invented_kept: float  # share of invented sentences above the threshold that keeps KEPT of the true ones
    images: int  # with both kinds
    true_sentences: int
    invented_sentences: int


class Snowball(NamedTuple):
    """How much an invention breeds the next: shares of the sentences that invent something."""

    after_none: float  # of those with no invention before them in the caption
    after_some: float  # of those with at least one
    sentences_after_none: int
    sentences_after_some: int


class Decoding(NamedTuple):
    """How answers are drawn."""

    temperature: float  # 0: greedy
    seed: int
    max_tokens: int = MAX_TOKENS


def captions_of(model: Any, processor: ProcessorMixin, scenes: Sequence[Scene], decoding: Decoding) -> list[str]:
    """One caption a scene, prompts in turn."""
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(len(scenes))]
    return answers_of(model, processor, scenes, prompts, decoding)


@torch.inference_mode()
def answers_of(
    model: Any,
    processor: ProcessorMixin,
    scenes: Sequence[Scene],
    prompts: Sequence[str],
    decoding: Decoding,
) -> list[str]:
    """One answer to each scene's prompt."""
    torch.manual_seed(decoding.seed)
    texts: list[str] = []
    sampling: dict[str, Any] = {"do_sample": False}
    if decoding.temperature:
        sampling = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0}
    for start in range(0, len(scenes), BATCH):
        turns = [_user_turn(processor, prompt) for prompt in prompts[start : start + BATCH]]
        images = [draw_scene(scene) for scene in scenes[start : start + BATCH]]
        inputs = processor(text=turns, images=images, padding=True, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=decoding.max_tokens, **sampling)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        texts.extend(processor.tokenizer.batch_decode(answers, skip_special_tokens=True))
    return texts


def _user_turn(processor: ProcessorMixin, prompt: str) -> str:
    content: Any = [{"type": "image"}, {"type": "text", "text": prompt}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def snowball(scenes: Sequence[Scene], rollouts: Sequence[Sequence[str]]) -> Snowball:
    """Count inventions by what came before them, over all draws (captions[draw][scene])."""
    counts, inventing = [0, 0], [0, 0]
    for draw in rollouts:
        for scene, text in zip(scenes, draw, strict=True):
            before = False
            for sentence in split_sentences(text):
                invents = not set(named_categories(sentence)) <= set(scene.categories)
                counts[before] += 1
                inventing[before] += invents
                before |= invents
    shares = [part / max(whole, 1) for part, whole in zip(inventing, counts, strict=True)]
    return Snowball(shares[0], shares[1], counts[0], counts[1])


def separation(scenes: Sequence[Scene], rollouts: Sequence[Sequence[str]], score: ScoreSentences) -> Separation:
    """Score every different sentence of a scene's rollouts (captions[draw][scene]) that names something."""
    images, sentences, owners = [draw_scene(scene) for scene in scenes], [], []
    for row in range(len(scenes)):
        different = dict.fromkeys(text for draw in rollouts for text in split_sentences(draw[row]))
        naming = [text for text in different if named_categories(text)]
        sentences.extend(naming)
        owners.extend([row] * len(naming))
    scores = score(images, sentences, owners)
    true: list[list[float]] = [[] for _ in scenes]
    invented: list[list[float]] = [[] for _ in scenes]
    for text, row, value in zip(sentences, owners, scores, strict=True):
        is_true = set(named_categories(text)) <= set(scenes[row].categories)
        (true if is_true else invented)[row].append(value)
    both = [auc(np.array(t), np.array(f)) for t, f in zip(true, invented, strict=True) if t and f]
    all_true = sorted(value for row in true for value in row)
    all_invented = [value for row in invented for value in row]
    if not both:  # a policy that has hardly been trained
        return Separation(math.nan, math.nan, math.nan, 0, len(all_true), len(all_invented))
    threshold = all_true[int((1 - KEPT) * len(all_true))]
    kept = sum(value >= threshold for value in all_invented) / len(all_invented)
    pooled = auc(np.array(all_true), np.array(all_invented))
    return Separation(sum(both) / len(both), pooled, kept, len(both), len(all_true), len(all_invented))
