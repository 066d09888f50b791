"""How the policy answers."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, model_validator

from tasks.stage.config import StageConfig


class RolloutConfig(StageConfig):
    """How the policy answers, several times per image (VisVM: greedy and T .2 .4 .6 .8)."""

    section: ClassVar[str] = "rollout"
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
