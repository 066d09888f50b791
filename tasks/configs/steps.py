"""One small frozen model a stage: what a user may set, with bounds and a meaning for every field.

Fields marked `semantic: False` change how fast, never what: they are left out of cache keys.
Config enters here, at the edge; core functions take flat keywords.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, field_validator, model_validator

from tasks.core.search import registry
from tasks.stage.config import NOT_SEMANTIC, StageConfig

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
        description="annotated images to measure on, for CHAIR needs to know what is there; kind: demo (images, seed, split) "
        "or coco (root, split)",
    )


class PolicyConfig(StageConfig):
    """The vision-language model to improve."""

    model_config = ConfigDict(title="Policy")
    # Its digest is what counts, and that is an input of every stage which loads it.
    checkpoint: str = Field(
        min_length=1,
        description="a local folder or a hub id that AutoModelForImageTextToText loads",
        json_schema_extra=NOT_SEMANTIC,
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="precision of weights and decoding")
    trust_remote_code: bool = Field(False, description="run code that the checkpoint brings; leave it off")


class SampleConfig(StageConfig):
    """Which images, under which prompts."""

    model_config = ConfigDict(title="Sample")
    images: int = Field(300, ge=2, description="training images a round, or all; none twice before all were drawn")
    val_share: float = Field(
        0.15, gt=0, lt=0.5, title="Validation share", description="share held out of value training, to judge it"
    )
    prompts: tuple[str, ...] = Field(DETAIL_PROMPTS, min_length=1, description="pool; one prompt an image, by seed")
    min_side: int = Field(8, ge=1, description="pixels; smaller images go to quarantine")
    max_megapixels: float = Field(50.0, gt=0, description="larger images go to quarantine, undecoded")
    max_quarantined: float = Field(0.05, ge=0, le=1, description="share of bad images above which the stage fails")


class RolloutConfig(StageConfig):
    """How the policy answers, several times an image (VisVM: greedy and T .2 .4 .6 .8)."""

    model_config = ConfigDict(title="Rollouts")
    greedy: bool = Field(True, description="one greedy answer")
    temperatures: tuple[Annotated[float, Field(gt=0, le=5)], ...] = Field(
        (0.2, 0.4, 0.6, 0.8), description="one sampled answer each; a temperature may be named twice"
    )
    top_p: float = Field(0.9, gt=0, le=1, title="Top p", description="nucleus mass kept")
    max_new_tokens: int = Field(1024, ge=1, le=32768, description="token limit of an answer")

    @model_validator(mode="after")
    def _answers_something(self) -> RolloutConfig:
        if not self.greedy and not self.temperatures:
            raise ValueError("greedy is off and temperatures is empty: nothing to roll out; set one of them")
        return self


class QuantileTau(StageConfig):
    """The margin is a quantile of this run's scores (ViMaR's 0.16 was about the 0.17 quantile of its own)."""

    model_config = ConfigDict(title="Quantile of this run's scores")
    kind: Literal["quantile"] = Field("quantile", description="a quantile of this run's scores")
    q: float = Field(0.17, ge=0, le=1, description="which quantile")


class FixedTau(StageConfig):
    """The margin is a number. Only meaningful for one scorer."""

    model_config = ConfigDict(title="Fixed number")
    kind: Literal["fixed"] = Field("fixed", description="a number, for one scorer only")
    value: float = Field(0.16, ge=-1, le=1, description="cosine")


class OtsuTau(StageConfig):
    """The margin is where two groups of scores part best (Otsu 1979): for scorers that separate clearly."""

    model_config = ConfigDict(title="Otsu's threshold")
    kind: Literal["otsu"] = Field("otsu", description="where this run's scores part best into two groups")


class LabelConfig(StageConfig):
    """From sentence scores to rewards (ViMaR's margin; methods of section 3.1)."""

    model_config = ConfigDict(title="Rewards")
    shaping: Literal["none", "margin", "published_equation", "zero_below", "floor", "continuous"] = Field(
        "margin", description="margin: d if d >= tau else -alpha (tau - d), the released code's rule"
    )
    tau: Annotated[QuantileTau | FixedTau | OtsuTau, Field(discriminator="kind")] = Field(
        QuantileTau(),
        title="Margin (tau)",
        description="where the margin lies; kind: quantile (q), fixed (value) or otsu",
    )
    alpha: float = Field(
        1.0, ge=0, le=100, title="Penalty (alpha)", description="slope of the penalty below the margin"
    )


def _strategy_names(schema: dict[str, Any]) -> None:
    schema["enum"] = registry.names()


class SearchConfig(StageConfig):
    """How better captions are found."""

    model_config = ConfigDict(title="Search")
    strategy: str = Field(
        "visvm", description="how captions are searched for; docs/strategies.md", json_schema_extra=_strategy_names
    )
    candidates: int = Field(6, ge=1, le=256, description="candidates a step: one greedy, the others over temperatures")
    temperatures: tuple[Annotated[float, Field(gt=0, le=5)], ...] = Field(
        (0.1, 0.3, 0.5, 0.7, 0.9), min_length=1, description="dealt out evenly over the candidates"
    )
    greedy: bool = Field(True, description="one candidate of a step is greedy; else all are drawn at the temperatures")
    top_p: float = Field(0.9, gt=0, le=1, title="Top p", description="nucleus mass kept")
    stop: Literal["reward", "vote", "chosen", "value"] = Field(
        "reward",
        description="reward: when no candidate reaches the margin; vote: when half of them end; "
        "chosen: when the best one ends; value: when the best one is worth less than stopping (0)",
    )
    redundancy: float = Field(
        0.0, ge=0, le=100, description="taken off what guides the choice, times the share that a candidate repeats"
    )
    by: Literal["score", "value", "judge"] | None = Field(
        None, description="who judges in best_of_n and vimar; none: the strategy's own way"
    )
    weak_quantile: float = Field(
        0.3, ge=0, le=1, description="vimar replaces sentences whose value is under this quantile of held-out ones"
    )
    max_sentences: int = Field(20, ge=1, le=1000, description="hard limit of a caption")
    max_sentence_tokens: int = Field(128, ge=4, le=4096, description="token limit of one candidate sentence")
    max_new_tokens: int = Field(1024, ge=1, le=32768, description="token limit of whole answers (greedy, best_of_n)")
    published: bool = Field(False, description="do as the released code does, defects included; docs/strategies.md")
    options: dict[str, bool | int | float | str] = Field({}, description="the strategy's own; docs/strategies.md")

    @field_validator("strategy")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in registry.names():
            registry.find(name)  # says which there are
        return name


def search_config(base: SearchConfig, spec: str) -> SearchConfig:
    """`NAME`, or `NAME:key=value,key=value`: another strategy with the settings of `base`, but for those named.

    A key that is no setting of the search is one of the strategy's own options.

    Raises:
        ValueError: for what is no such text, or a value out of its bounds.
    """
    name, _, rest = spec.partition(":")
    settings: dict[str, Any] = {"strategy": name}
    options = {} if name != base.strategy else dict(base.options)
    for part in filter(None, rest.split(",")):
        key, equals, text = part.partition("=")
        if not equals:
            raise ValueError(f"{spec!r}: {part!r} is no key=value; write for example best_of_n:by=value,candidates=4")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{spec!r}: {text!r} is no value ({error})") from error
        if key in SearchConfig.model_fields:
            settings[key] = value
        else:
            options[key] = value
    return SearchConfig.model_validate({**base.model_dump(), "options": options, **settings})


class EvaluateConfig(StageConfig):
    """What is measured, and how sure we want to be."""

    model_config = ConfigDict(title="Benchmark")
    images: int = Field(500, ge=2, description="annotated images, the same ones in every round")
    decodings: tuple[Literal["greedy", "search"], ...] = Field(
        ("greedy", "search"), min_length=1, description="of the base: greedy, and the profile's search without training"
    )
    bootstrap: int = Field(2000, ge=100, le=100_000, description="resamples for intervals")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval")


class HealthConfig(StageConfig):
    """Is the loop's ground firm: does the base hallucinate, does it see, can the scorer tell?"""

    model_config = ConfigDict(title="Health gate")
    images: int = Field(100, ge=2, description="annotated images whose rollouts judge the scorer")
    min_scorer_auc: float = Field(
        0.6, ge=0, le=1, title="Scorer AUC at least", description="true against hallucinated sentences within one image"
    )
    min_chair_i: float = Field(
        0.0, ge=0, le=1, title="CHAIRi at least", description="a base that never hallucinates has nothing to learn here"
    )
    max_chair_i: float = Field(
        0.5, ge=0, le=1, title="CHAIRi at most", description="above: the base is too poor to learn from itself"
    )
    min_recall: float = Field(
        0.3, ge=0, le=1, title="Recall at least", description="below: the base does not see what is there"
    )
    action: Literal["stop", "warn"] = Field("stop", description="what a failed check does to the run")


class PromoteConfig(StageConfig):
    """When a candidate becomes the champion: two-sided, on paired intervals."""

    model_config = ConfigDict(title="Promotion gate")
    metric: Literal["chair_i", "chair_s", "accuracy"] = Field(
        "chair_i", description="whose paired interval must lie on the better side of zero; accuracy for task: answers"
    )
    recall_tolerance: float = Field(0.02, ge=0, le=1, description="recall may be this much lower, by its interval")


class RuntimeConfig(StageConfig):
    """How fast, never what: nothing here changes a result."""

    model_config = ConfigDict(title="Runtime")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="auto: a GPU if there is one",
        json_schema_extra=NOT_SEMANTIC,
    )
    batch_size: int = Field(16, ge=1, le=65536, description="images in flight", json_schema_extra=NOT_SEMANTIC)
    token_budget: int = Field(
        0,
        ge=0,
        description="tokens of key-value cache that are decoded over at once; 0: until memory runs out, then half of it",
        json_schema_extra=NOT_SEMANTIC,
    )
    shards: int = Field(
        1,
        ge=1,
        le=4096,
        description="parts a stage is split into; each resumes by itself",
        json_schema_extra=NOT_SEMANTIC,
    )
    threads: int = Field(
        0, ge=0, le=1024, description="of torch on the CPU; 0: torch decides", json_schema_extra=NOT_SEMANTIC
    )
