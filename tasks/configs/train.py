"""How the policy learns, and what guards it against forgetting."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from tasks.stage.config import NOT_SEMANTIC, StageConfig


class ReplayConfig(StageConfig):
    """Other material among what is learned, so that what is not trained for is not lost."""

    model_config = ConfigDict(title="Replay")
    share: float = Field(0.0, ge=0, lt=1, description="of the examples that are replayed; 0: none")
    source: str = Field(
        "self",
        min_length=1,
        description="self: the base's own greedy answers to questions about the round's images; or a JSON Lines file in "
        "LLaVA's form (image, conversations)",
    )


class DpoConfig(StageConfig):
    """Direct preference optimisation: the best answer of a prompt against its worst."""

    model_config = ConfigDict(title="DPO")
    by: Literal["value", "reward"] = Field("value", description="what ranks an image's answers: mean V, or mean reward")
    beta: float = Field(0.1, gt=0, le=10, description="strength of the reference")
    min_gap: float = Field(0.0, ge=0, description="pairs whose worth differs less are left out")


class GrpoConfig(StageConfig):
    """Group-relative policy optimisation: new answers, each judged against the others to its prompt."""

    model_config = ConfigDict(title="GRPO")
    reward: Literal["score", "value"] = Field(
        "score", description="mean shaped reward of an answer's sentences, or mean V"
    )
    generations: int = Field(4, ge=2, le=64, description="answers a prompt")
    temperature: float = Field(1.0, gt=0, le=5, description="they are drawn at")
    max_new_tokens: int = Field(160, ge=1, le=32768, description="token limit of an answer")
    beta: float = Field(0.0, ge=0, le=10, description="weight of the divergence from the reference")


class FisaoConfig(StageConfig):
    """PPO with a reward for every object word (FiSAO, arXiv 2410.14148); its constants are not published, these are ours."""

    model_config = ConfigDict(title="FiSAO")
    baselines: Literal["annotations", "split"] = Field(
        "annotations",
        description="mean scores of right and hallucinated words: by CHAIR on the round's own rollouts (the paper), or where "
        "the scores part best into two groups, without annotations",
    )
    margin: float = Field(0.0, ge=0, le=1, title="Margin (lambda)", description="between a baseline and a reward")
    clip: float = Field(0.2, gt=0, lt=1, description="of the probability ratio")
    kl: float = Field(0.05, ge=0, le=10, description="weight of the divergence from the reference, a token")
    gamma: float = Field(1.0, ge=0, le=1, description="discount a token")
    gae_lambda: float = Field(0.95, ge=0, le=1, title="GAE lambda", description="of generalised advantage estimation")
    value_weight: float = Field(0.5, ge=0, le=10, description="of the critic's loss")
    passes: int = Field(2, ge=1, le=100, description="over the answers of an iteration")
    iterations: int = Field(
        2, ge=1, le=100, description="the first learns from the round's rollouts, later ones from new answers"
    )
    temperature: float = Field(1.0, gt=0, le=5, description="new answers are drawn at")


class FinetuneConfig(StageConfig):
    """How the policy learns from what the round found; loss on the answer only."""

    model_config = ConfigDict(title="Fine-tuning")
    method: Literal["sft", "dpo", "grpo", "fisao"] = Field(
        "sft",
        description="sft: the searched captions; dpo: the best answer against the worst of the same rollouts; grpo: groups of "
        "new answers, rewarded; fisao: PPO with a reward for every object word",
    )
    train: Literal["full", "lora"] = Field("lora", description="all weights, or adapters that are merged afterwards")
    lr: float = Field(1e-5, gt=0, le=1, title="Learning rate", description="learning rate (VisVM: 1e-6, full)")
    epochs: float = Field(1.0, gt=0, le=1000, description="passes over the captions")
    batch_size: int = Field(16, ge=1, description="captions a step; for dpo pairs; for grpo answers, in whole groups")
    warmup_share: float = Field(0.03, ge=0, lt=1, description="share of the steps that warm up; then linear decay")
    lora_rank: int = Field(16, ge=1, le=1024, title="LoRA rank", description="rank of the adapters where train is lora")
    checkpoint_steps: int = Field(200, ge=1, description="steps between resume points", json_schema_extra=NOT_SEMANTIC)
    replay: ReplayConfig = Field(
        ReplayConfig(), title="Replay", description="sft: other material among the captions, against forgetting"
    )
    dpo: DpoConfig = Field(DpoConfig(), title="DPO", description="of method dpo")
    grpo: GrpoConfig = Field(GrpoConfig(), title="GRPO", description="of method grpo")
    fisao: FisaoConfig = Field(FisaoConfig(), title="FiSAO", description="of method fisao")

    @model_validator(mode="after")
    def _has_whole_groups(self) -> FinetuneConfig:
        if self.method == "grpo" and self.batch_size % self.grpo.generations:
            raise ValueError(
                f"batch_size is {self.batch_size} and grpo.generations {self.grpo.generations}: a step holds whole groups; "
                f"set batch_size to a multiple of {self.grpo.generations}"
            )
        return self

    def alone(self) -> FinetuneConfig:
        """The same with the other methods' settings at their defaults: what is not read must not be part of a key."""
        others = {"replay": ReplayConfig(), "dpo": DpoConfig(), "grpo": GrpoConfig(), "fisao": FisaoConfig()}
        others.pop("replay" if self.method == "sft" else self.method)
        return self.model_copy(update=others)
