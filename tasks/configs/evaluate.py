"""What is measured, and which figures let a run go on or a model be promoted."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from tasks.stage.config import StageConfig


class EvaluateConfig(StageConfig):
    """What is measured, and the confidence of the intervals."""

    section: ClassVar[str] = "evaluate"
    model_config = ConfigDict(title="Benchmark")
    images: int = Field(500, ge=2, description="annotated images, the same ones in every round")
    decodings: tuple[Literal["greedy", "search"], ...] = Field(
        ("greedy", "search"), min_length=1, description="of the base: greedy, and the profile's search without training"
    )
    bootstrap: int = Field(2000, ge=100, le=100_000, description="resamples for intervals")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval")


class HealthConfig(StageConfig):
    """The health check before the first round: does the base hallucinate, what is its recall, does the scorer separate?"""

    section: ClassVar[str] = "health"
    model_config = ConfigDict(title="Health gate")
    images: int = Field(100, ge=2, description="annotated images on whose rollouts the scorer is measured")
    min_scorer_auc: float = Field(
        0.6, ge=0, le=1, title="Scorer AUC at least", description="true against hallucinated sentences within one image"
    )
    min_chair_i: float = Field(
        0.0, ge=0, le=1, title="CHAIRi at least", description="a base that never hallucinates has nothing to learn here"
    )
    max_chair_i: float = Field(
        0.5,
        ge=0,
        le=1,
        title="CHAIRi at most",
        description="above: the base hallucinates too much to learn from itself",
    )
    min_recall: float = Field(
        0.3, ge=0, le=1, title="Recall at least", description="below: the base misses too many objects"
    )
    action: Literal["stop", "warn"] = Field("stop", description="what a failed check does to the run")


class DriftConfig(StageConfig):
    """How far a new model may move from the base in what it was not trained for."""

    section: ClassVar[str] = "drift"
    model_config = ConfigDict(title="Drift")
    questions: int = Field(
        0,
        ge=0,
        description="questions about benchmark images, answered before and after, as a general benchmark; 0: none",
    )
    max_length_change: float | None = Field(
        None, gt=0, description="largest relative change of the captions' mean length, in words; none: no bound"
    )
    max_ngram_drift: float | None = Field(
        None, gt=0, le=1, description="largest Jensen-Shannon divergence of the captions' word pairs; none: no bound"
    )
    max_general_drop: float | None = Field(
        None,
        gt=0,
        le=1,
        description="largest drop in accuracy on the general benchmark, by its interval; none: no bound",
    )
    action: Literal["refuse", "stop"] = Field(
        "refuse", description="refuse: a model beyond a bound is not promoted; stop: the run ends there as well"
    )


class PromoteConfig(StageConfig):
    """When a candidate becomes the champion: two-sided, on paired intervals."""

    section: ClassVar[str] = "promote"
    model_config = ConfigDict(title="Promotion gate")
    metric: Literal["chair_i", "chair_s", "accuracy"] = Field(
        "chair_i", description="whose paired interval must lie on the better side of zero; accuracy for task: answers"
    )
    recall_tolerance: float = Field(0.02, ge=0, le=1, description="recall may be this much lower, by its interval")
