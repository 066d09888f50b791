"""SENTINEL's settings: what calls a sentence true or hallucinated, and how pairs of sentences are made and learned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from tasks.configs.reward import DetectedObjects
from tasks.stage.config import StageConfig


class ObjectsVerdict(DetectedObjects):
    """A sentence is true if a detector finds all objects that it names, hallucinated if it finds one of them nowhere."""

    model_config = ConfigDict(title="Detected objects")
    kind: Literal["objects"] = Field("objects", description="the objects that a detector finds in the image")


class ScoreVerdict(StageConfig):
    """A sentence is true if the round's reward scores it above the margin, hallucinated if below; between, uncertain."""

    model_config = ConfigDict(title="Score")
    kind: Literal["score"] = Field("score", description="the reward's score against the round's margin (label.tau)")
    band: float = Field(
        0.25,
        ge=0,
        le=10,
        description="uncertain within so many deviations (of the candidates' scores) of the margin",
    )


class PluginVerdict(StageConfig):
    """The scores of an installed package's function against two bounds."""

    model_config = ConfigDict(title="Plug-in")
    kind: Literal["plugin"] = Field(
        "plugin", description="a function of an installed package, of group visloop.rewards"
    )
    name: str = Field(min_length=1, description="the entry point's name")
    true_from: float = Field(allow_inf_nan=False, description="true from this score on")
    hallucinated_below: float = Field(
        allow_inf_nan=False, description="hallucinated below this score; uncertain between"
    )

    @model_validator(mode="after")
    def _has_bounds_in_order(self) -> PluginVerdict:
        if self.hallucinated_below > self.true_from:
            raise ValueError(
                f"hallucinated_below is {self.hallucinated_below:g} and true_from {self.true_from:g}: "
                "set the first to at most the second"
            )
        return self


VerdictSource = Annotated[ObjectsVerdict | ScoreVerdict | PluginVerdict, Field(discriminator="kind")]


class SentinelSettings(StageConfig):
    """Pairs of next sentences after the same answer so far (SENTINEL, arXiv 2507.12455), learned by DPO on the sentence."""

    model_config = ConfigDict(title="SENTINEL")
    verdicts: tuple[VerdictSource, ...] = Field(
        (ObjectsVerdict(), ScoreVerdict()),
        min_length=1,
        description="what calls a candidate true or hallucinated; all must agree, the others are left out; kind: objects "
        "(a detector's table, or zero-shot), score or plugin; the paper: two detectors",
    )
    pairs_per_step: int = Field(1, ge=1, le=64, description="pairs of one step of a search at most")
    beta: float = Field(0.1, gt=0, le=10, description="strength of the reference")
