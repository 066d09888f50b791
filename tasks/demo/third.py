"""Trains the demo's third policy, of another architecture, and writes it where any checkpoint may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch

from tasks.core.demo.audit import Decoding, captions_of
from tasks.core.demo.measure import hallucination
from tasks.core.demo.scenes import sample_scenes
from tasks.core.demo.third_policy import Taught, Tower, third_model, third_processor, third_tokenizer
from tasks.core.demo.train_policy import train_policy
from tasks.core.demo.train_vision import train_vision
from tasks.demo.pretrain import log_step, published


class ThirdSteps(NamedTuple):
    """How long each part trains, and on how many scenes the policy is measured."""

    tower: int = 600
    policy: int = 1800
    scenes: int = 500


def pretrain_third(folder: Path, *, steps: ThirdSteps, seed: int) -> dict[str, float]:
    """Train tower and policy, write the checkpoint, and return how its greedy captions of new scenes hallucinate.

    The folder is complete or not there; the figures stand in its `measured.json`.
    """
    torch.set_num_threads(1)  # gives the same weights again
    torch.manual_seed(seed)
    tokenizer = third_tokenizer()
    model, processor = third_model(tokenizer), third_processor(tokenizer)
    tower = Tower(model.model.visual)
    for step, right, _ in train_vision(steps=steps.tower, batch=64, seed=seed, build=lambda: tower):
        log_step("tower", step, steps.tower, f"{right:.1%} of object patches named right")
    taught = Taught(model, tokenizer)
    for step, loss, _ in train_policy(lambda _: taught, tokenizer, steps=steps.policy, batch=48, seed=seed):
        log_step("third policy", step, steps.policy, f"loss {loss:.3f}")
    world = list(sample_scenes(f"measure {seed}", steps.scenes))
    captions = captions_of(model.eval(), processor, world, Decoding(0.0, seed))
    figures = hallucination(captions, [scene.categories for scene in world])._asdict()
    with published(folder) as fresh:
        model.save_pretrained(fresh)
        processor.save_pretrained(fresh)
        (fresh / "measured.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures
