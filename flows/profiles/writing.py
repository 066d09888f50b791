"""A new profile for a model, images and a device's memory, commented, with settings by which the computed peaks fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.profiles.errors import explain
from flows.profiles.loading import Profile, ProfileError, locate
from flows.profiles.memory import changed, fits, peaks_of, smallest_changes
from tasks.models.architectures import ArchitectureUnknown
from tasks.models.memory import UnknownImageCost

SCORER = "ViT-L-14-336-quickgelu/openai"
TEMPLATE = """\
# Written by visloop init for {device} of memory. Computed peaks (docs/memory.md):
#   {peaks}
#   visloop plan {path} --device-memory {device}
name: {name}
description: {description}
seed: 0
rounds: 2
patience: 1

policy:
  checkpoint: {checkpoint}
  dtype: {dtype}
  max_pixels: {max_pixels}                # pixels of the largest image that the processor makes; null: the checkpoint's own
scorer:
  checkpoint: {scorer}    # its AUC on your policy's sentences decides everything: see the health check

data:
  train: {train}
  benchmark: {benchmark}    # annotated images to measure on

sample:
  images: {count}                         # a start; the papers take 23240
  max_quarantined: 0.5                    # a folder of your own may hold broken files; the report lists them

rollout:
  temperatures: [0.2, 0.4, 0.6, 0.8]      # with greedy: five answers an image
  max_new_tokens: {rollout_tokens}

label:
  shaping: margin
  tau: {{kind: quantile, q: 0.17}}          # fits any scorer

value:
  reads: {reads}                          # policy_states: a head on the policy's own states, no second network
  lr: {value_lr}
  epochs: {value_epochs}
  batch_size: {value_batch}

search:
  strategy: visvm
  candidates: {candidates}                # greedy and the temperatures, one each
  max_sentences: 20
  max_sentence_tokens: 64
  max_new_tokens: {search_tokens}

finetune:
  method: sft
  train: {train_what}                     # full: 16 bytes a parameter, with float32 weights; lora: adapters, merged afterwards
  lr: {lr}
  epochs: 1
  batch_size: {batch}                     # effective, reached by accumulation
  micro_batch_size: {micro}               # read at once

evaluate:
  images: 500
health:
  images: 100
  action: warn

runtime:
  device: {cuda}
  batch_size: {in_flight}                 # images in flight
  shards: 16
"""


def folder_or_coco(images: str, benchmark: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sources of the training and the benchmark images; `images` is a folder or a COCO root, `benchmark` ROOT:SPLIT.

    Raises:
        ProfileError: no such folder, or a benchmark that is no ROOT:SPLIT.
    """
    root = Path(images).expanduser()
    if not root.is_dir():
        raise ProfileError(f"--images {images}: no such folder; give a folder of images, or a COCO root")
    train: dict[str, Any] = {"kind": "folder", "root": str(root)}
    splits = sorted(path.stem.removeprefix("instances_") for path in root.glob("annotations/instances_*.json"))
    training = [split for split in splits if "train" in split]
    held_out = [split for split in splits if split not in training]
    if training:
        train = {"kind": "coco", "root": str(root), "split": training[-1]}
    if benchmark is not None:
        folder, colon, split = benchmark.rpartition(":")
        if not colon or not folder or not split:
            raise ProfileError(f"--benchmark {benchmark}: want ROOT:SPLIT, for example data/coco:val2017")
        return train, {"kind": "coco", "root": str(Path(folder).expanduser()), "split": split}
    if training and held_out:
        return train, {"kind": "coco", "root": str(root), "split": held_out[-1]}
    return train, {"kind": "demo", "images": 4000, "seed": 0, "split": "test"}


def start(name: str, model: str, sources: tuple[Mapping[str, Any], Mapping[str, Any]], scorer: str) -> Profile:
    """The profile before it is made to fit: bfloat16, all weights, many images in flight."""
    train, benchmark = sources
    tree: dict[str, Any] = {
        "name": name,
        "policy": {"checkpoint": model, "dtype": "bfloat16"},
        "scorer": {"checkpoint": scorer},
        "data": {"train": dict(train), "benchmark": dict(benchmark)},
        "sample": {"images": 2000, "max_quarantined": 0.5},
        "rollout": {"max_new_tokens": 512},
        "value": {"reads": "policy_states", "lr": 1e-3, "epochs": 5, "batch_size": 32},
        "search": {"max_sentence_tokens": 64, "max_new_tokens": 512},
        "finetune": {"method": "sft", "train": "full", "lr": 1e-6, "batch_size": 32, "micro_batch_size": 8},
        "health": {"action": "warn"},
        "runtime": {"device": "cuda", "batch_size": 16, "shards": 16},
    }
    try:
        return Profile.model_validate(tree)
    except ValidationError as error:
        raise ProfileError(explain(error, Profile, f"a profile named {name!r}")) from None


def fitting(profile: Profile, memory: int, device: str) -> Profile:
    """The profile with the smallest set of changes by which it fits.

    Raises:
        ProfileError: the model's sizes are not known, or nothing fits.
    """
    try:
        peaks = peaks_of(profile)
    except (ArchitectureUnknown, UnknownImageCost) as error:
        raise ProfileError(str(error)) from None
    if fits(peaks, memory):
        return profile
    changes = smallest_changes(profile, memory)
    if changes is None:
        worst = max(peaks, key=lambda peak: peak.bytes)
        raise ProfileError(
            f"{profile.policy.checkpoint} fits {device} with no setting: {worst.stage.replace('_', '-')} needs "
            f"{worst.bytes / 1e9:.1f} GB as papers train; choose a smaller model or a larger device"
        )
    return changed(profile, changes)


def as_text(profile: Profile, path: str, device: str) -> str:
    """The profile's file."""
    peaks = ", ".join(f"{peak.stage.replace('_', '-')} {peak.bytes / 1e9:.1f} GB" for peak in peaks_of(profile))
    policy, value, search, finetune = profile.policy, profile.value, profile.search, profile.finetune
    fields = {
        "device": device, "peaks": peaks, "path": path, "name": profile.name,
        "description": f"{Path(policy.checkpoint).name} on {Path(getattr(profile.data.train, 'root', '.')).name}",
        "checkpoint": policy.checkpoint, "dtype": policy.dtype, "max_pixels": policy.max_pixels,
        "scorer": profile.scorer.checkpoint, "train": profile.data.train.model_dump(),
        "benchmark": profile.data.benchmark.model_dump(), "count": profile.sample.images,
        "rollout_tokens": profile.rollout.max_new_tokens, "reads": value.reads, "value_lr": value.lr,
        "value_epochs": value.epochs, "value_batch": value.batch_size, "candidates": search.candidates,
        "search_tokens": search.max_new_tokens, "train_what": finetune.train, "lr": finetune.lr,
        "batch": finetune.batch_size, "micro": finetune.micro_batch_size, "cuda": profile.runtime.device,
        "in_flight": profile.runtime.batch_size,
    }  # fmt: skip
    comments = {"device", "peaks", "path"}
    return TEMPLATE.format_map({name: value if name in comments else _yaml(value) for name, value in fields.items()})


def _yaml(value: object) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def known_as(model: str) -> str:
    """A folder as an absolute path, a hub id as it came."""
    return locate(model)
