"""Which rewards sentences get, and how several make one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from tasks.stage.config import StageConfig

Weight = Annotated[float, Field(ge=-100, le=100, description="factor of this reward in the sum")]


class CosineReward(StageConfig):
    """The cosine of image and sentence by any CLIP or SigLIP of open_clip or transformers (VisVM section 3.1)."""

    model_config = ConfigDict(title="Cosine")
    kind: Literal["cosine"] = Field("cosine", description="an image-text model's cosine")
    checkpoint: str = Field(min_length=1, description="as scorer.checkpoint")
    weight: Weight = 1.0


class DetectedObjects(StageConfig):
    """Which objects count as present in an image."""

    table: str = Field(
        "",
        description="a detector's table, Parquet or CSV: image_id, object (COCO's name) and confidence; empty: the objects are "
        "detected by the scorer itself, zero-shot",
    )
    threshold: float = Field(
        0.5,
        ge=-1,
        le=1,
        description="least confidence of an object that counts as present; zero-shot, 0.5: more likely than not",
    )


class ObjectsReward(DetectedObjects):
    """Whether what a sentence names is there: mean over its objects of 1 (in the table) or -1; 0 if it names none."""

    model_config = ConfigDict(title="Object list")
    kind: Literal["objects"] = Field("objects", description="objects that a detector lists")
    weight: Weight = 1.0


class CompletenessReward(DetectedObjects):
    """Share of the image's detected objects that the sentence adds to those named before; 0 if none was detected (MRGD)."""

    model_config = ConfigDict(title="Completeness")
    kind: Literal["completeness"] = Field(
        "completeness", description="detected objects that a sentence is the first to name"
    )
    weight: Weight = 1.0


class LikelihoodReward(StageConfig):
    """The base policy's own mean log-likelihood of the sentence's tokens, given the image."""

    model_config = ConfigDict(title="Own likelihood")
    kind: Literal["likelihood"] = Field("likelihood", description="the base policy's log-likelihood of the sentence")
    contrast: bool = Field(True, description="less the log-likelihood without the image: what the image adds")
    prompt: str = Field(
        "Describe the following image.", min_length=1, description="the prompt that the sentence answers"
    )
    weight: Weight = 1.0


class JudgeReward(StageConfig):
    """A model behind an OpenAI-compatible endpoint rates the sentence from 0 to 10; the reward is a tenth of it."""

    model_config = ConfigDict(title="Judge")
    kind: Literal["judge"] = Field("judge", description="a model behind an OpenAI-compatible endpoint")
    url: str = Field(min_length=1, description="for example http://localhost:8000/v1")
    model: str = Field(min_length=1, description="its name at the endpoint")
    key_variable: str = Field("OPENAI_API_KEY", description="environment variable with the key, if it is set")
    weight: Weight = 1.0


class TokenReward(StageConfig):
    """FiSAO's: the mean cosine of the image and each object word of the sentence; 0 if it names none (section 5)."""

    model_config = ConfigDict(title="Object words")
    kind: Literal["token_clip"] = Field("token_clip", description="cosines of the sentence's object words")
    checkpoint: str = Field("", description="as scorer.checkpoint; empty: that one")
    weight: Weight = 1.0


class PluginReward(StageConfig):
    """An installed package's function (image, sentences) -> scores: an entry point of group `visloop.rewards`."""

    model_config = ConfigDict(title="Plug-in")
    kind: Literal["plugin"] = Field("plugin", description="a function of an installed package")
    name: str = Field(min_length=1, description="the entry point's name")
    weight: Weight = 1.0


Reward = Annotated[
    CosineReward | ObjectsReward | CompletenessReward | LikelihoodReward | JudgeReward | TokenReward | PluginReward,
    Field(discriminator="kind"),
]


class ScorerConfig(StageConfig):
    """The image-text model whose cosine is the reward."""

    section: ClassVar[str] = "scorer"
    model_config = ConfigDict(title="Scorer")
    checkpoint: str = Field(
        min_length=1,
        description="a folder of open_clip or of transformers (CLIP, SigLIP), hf-hub:ORG/NAME of either, or open_clip's "
        "NAME/PRETRAINED as ViT-L-14-336-quickgelu/openai",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of the weights of all image-text models here; cosines are float32"
    )
    rewards: tuple[Reward, ...] = Field(
        (),
        description="several rewards, summed; kind: cosine, objects, completeness, likelihood, judge, token_clip or plugin, "
        "each with a weight; none: the checkpoint's cosine alone",
    )
    scale: Literal["standard", "raw"] = Field(
        "standard",
        description="of several rewards: standard: each less its mean over its deviation, both of the run's own answers, "
        "before they are weighted; raw: as they are",
    )


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
    """The margin is Otsu's threshold (1979) on this run's scores: for scorers that separate two groups clearly."""

    model_config = ConfigDict(title="Otsu's threshold")
    kind: Literal["otsu"] = Field(
        "otsu", description="Otsu's threshold on this run's scores, which splits them into two groups"
    )


class LabelConfig(StageConfig):
    """From sentence scores to rewards (ViMaR's margin; methods of section 3.1)."""

    section: ClassVar[str] = "label"
    model_config = ConfigDict(title="Rewards")
    shaping: Literal["none", "margin", "published_equation", "zero_below", "floor", "continuous", "centred"] = Field(
        "margin",
        description="margin: d if d >= tau else -alpha (tau - d), the released code's rule; centred: d - tau",
    )
    tau: Annotated[QuantileTau | FixedTau | OtsuTau, Field(discriminator="kind")] = Field(
        QuantileTau(),
        title="Margin (tau)",
        description="how the margin is set; kind: quantile (q), fixed (value) or otsu",
    )
    alpha: float = Field(
        1.0, ge=0, le=100, title="Penalty (alpha)", description="slope of the penalty below the margin"
    )
