"""What is measured, and which figures let a run go on or a model be promoted."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from tasks.stage.config import StageConfig

# What results call the searches that stand beside one by V; flows.round.controls measures them.
CONTROL = "control: "
RANDOM_V, V_GAMMA_0, CLIP_PRM, GREEDY_END = "random V", "V, gamma 0", "CLIP-PRM", "greedy with the same end"
BEST_OF = "best of {n}, {tokens} tokens"
CONTROLS = (RANDOM_V, V_GAMMA_0, CLIP_PRM, BEST_OF.partition("{")[0], GREEDY_END)  # how they begin, in order


class EvaluateConfig(StageConfig):
    """What is measured, and the confidence of the intervals."""

    section: ClassVar[str] = "evaluate"
    model_config = ConfigDict(title="Benchmark")
    images: int = Field(500, ge=2, description="annotated images, the same ones in every round")
    decodings: tuple[Literal["greedy", "search", "controls"], ...] = Field(
        ("greedy", "search"),
        min_length=1,
        description="of the base: greedy; the profile's search without training; and beside a search by V controls: random "
        "numbers, V of gamma 0, CLIP-PRM, best of n at equal tokens, greedy with the same end (five searches and a second V)",
    )
    bootstrap: int = Field(2000, ge=100, le=100_000, description="resamples for intervals")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval")

    @model_validator(mode="after")
    def _controls_stand_beside_a_search(self) -> EvaluateConfig:
        if "controls" in self.decodings and "search" not in self.decodings:
            raise ValueError("decodings has controls and not search, which they stand beside: add search")
        return self


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
