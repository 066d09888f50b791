"""`visloop init`: write a profile for a model, images and a device's memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.errors import InputError
from flows.cli.output import console


def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The profile to write, a YAML file.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Hub id or folder of the policy.")],
    images: Annotated[str, typer.Option("--images", metavar="DIR", help="A folder of images, or a COCO root.")],
    device_memory: Annotated[str, typer.Option("--device-memory", metavar="SIZE", help="Memory to fit, as 24GB.")],
    benchmark: Annotated[
        str | None, typer.Option(metavar="ROOT:SPLIT", help="Annotated images in COCO's layout to measure on.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(metavar="NAME", help="The scorer; CLIP ViT-L/14-336 if left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a profile that fits a device.

    Number format, full or LoRA training, batch sizes and images in flight are chosen by the computed memory of every stage
    (docs/memory.md); the smallest change from how the papers train.

    Examples:

        visloop init mine.yaml --model Qwen/Qwen2.5-VL-3B-Instruct --images photographs --device-memory 24GB

        visloop init mine.yaml --model deployments/demo/policy --images coco --benchmark coco:val2017 --device-memory 80GB
    """
    from flows.profiles.memory import device_bytes, peaks_of
    from flows.profiles.writing import SCORER, as_text, fitting, folder_or_coco, known_as, start

    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: a profile's name ends with .yaml")
    if path.exists() and not force:
        raise InputError(f"{path} is there already; --force writes over it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent}; make it first")
    memory = device_bytes(device_memory)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64] or "mine"
    sources = folder_or_coco(images, benchmark)
    profile = fitting(start(name, known_as(model), sources, known_as(scorer or SCORER)), memory, device_memory)
    path.write_text(as_text(profile, str(path), device_memory), encoding="utf-8")
    worst = max(peaks_of(profile), key=lambda peak: peak.bytes)
    console().print(
        f"{path}: {profile.finetune.train} training, {profile.runtime.batch_size} images in flight; "
        f"at most {worst.bytes / 1e9:.1f} GB of {memory / 1e9:.1f} GB ({worst.stage.replace('_', '-')})",
        soft_wrap=True,
    )
    if profile.data.benchmark.kind == "demo":
        console().print(
            "measured on drawn scenes: give --benchmark ROOT:SPLIT for a model of photographs", soft_wrap=True
        )
    console().print(f"next: visloop plan {path} --device-memory {device_memory}", soft_wrap=True)
