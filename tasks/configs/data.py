"""Where images come from, and which of them are drawn under which prompts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator

from tasks.core.placeholders import strip_placeholders
from tasks.stage.config import StageConfig

DETAIL_PROMPTS = (
    "Describe the following image.",
    "What do you see happening in this image?",
    "Write a detailed description of the given image.",
    "What are the key elements in this picture?",
    "Can you describe the main features of this image for me?",
)


class DemoSource(StageConfig):
    """Scenes drawn by the demo world's generator, written as a COCO data set on first use."""

    model_config = ConfigDict(title="Demo world")
    kind: Literal["demo"] = Field("demo", description="scenes drawn on this machine, nothing to download")
    images: int = Field(4000, ge=20, le=1_000_000, description="scenes in all, over train, val and test")
    seed: int = Field(0, ge=0, description="seed of the generator; another seed is another data set")
    split: Literal["train", "val", "test"] = Field("train", description="which part to read")


class CocoSource(StageConfig):
    """A data set in COCO's layout: `ROOT/SPLIT/*.jpg` and `ROOT/annotations/instances_SPLIT.json`."""

    model_config = ConfigDict(title="COCO data set")
    kind: Literal["coco"] = Field("coco", description="a folder in COCO's layout")
    root: str = Field(min_length=1, description="the folder that holds annotations/ and the split's images")
    split: str = Field("train2017", min_length=1, description="for example train2017 or val2017")


class FolderSource(StageConfig):
    """Any folder of images, searched through all its levels; nothing else is needed to train on it."""

    model_config = ConfigDict(title="Image folder")
    kind: Literal["folder"] = Field("folder", description="a folder of images")
    root: str = Field(min_length=1, description="the folder")


TrainSource = Annotated[DemoSource | CocoSource | FolderSource, Field(discriminator="kind")]


BenchmarkSource = Annotated[DemoSource | CocoSource, Field(discriminator="kind")]


class DataConfig(StageConfig):
    """Where images come from."""

    section: ClassVar[str] = "data"
    model_config = ConfigDict(title="Data")
    train: TrainSource = Field(
        DemoSource(),
        title="Training images",
        description="images to learn from, no annotation of theirs is ever read; kind: demo (images, seed, split), "
        "coco (root, split) or folder (root)",
    )
    benchmark: BenchmarkSource = Field(
        DemoSource(split="test"),
        title="Benchmark images",
        description="annotated images to measure on, for CHAIR needs the objects in an image; kind: demo (images, seed, "
        "split) or coco (root, split)",
    )


class SampleConfig(StageConfig):
    """Which images, under which prompts."""

    section: ClassVar[str] = "sample"
    model_config = ConfigDict(title="Sample")
    images: int = Field(
        300,
        ge=2,
        description="training images per round, or all; an image is drawn again only after all have been drawn",
    )
    val_share: float = Field(
        0.15, gt=0, lt=0.5, title="Validation share", description="share held out of value training, to validate it"
    )
    prompts: tuple[str, ...] = Field(DETAIL_PROMPTS, min_length=1, description="pool; one prompt an image, by seed")
    min_side: int = Field(8, ge=1, description="pixels; smaller images go to quarantine")
    max_megapixels: float = Field(50.0, gt=0, description="larger images go to quarantine, undecoded")
    max_quarantined: float = Field(0.05, ge=0, le=1, description="share of bad images above which the stage fails")

    @field_validator("prompts")
    @classmethod
    def _of_words(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if not strip_placeholders(prompt).strip():
                raise ValueError(
                    f"{prompt!r} asks nothing: the chat template writes the image's placeholder; give a text"
                )
        return prompts
