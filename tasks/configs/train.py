"""How the policy learns: the settings that all methods share, and for each method a model with its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from tasks.configs.sentinel import SentinelSettings
from tasks.stage.config import NOT_SEMANTIC, StageConfig


class ReplayConfig(StageConfig):
    """Other training examples among the captions, against forgetting."""

    model_config = ConfigDict(title="Replay")
    share: float = Field(0.0, ge=0, lt=1, description="share of the examples that are replayed; 0: none")
    source: str = Field(
        "self",
        min_length=1,
        description="self: the base policy's greedy answers to questions about the round's images; or a JSON Lines file in "
        "LLaVA's format (image, conversations)",
    )


class DpoSettings(StageConfig):
    """Direct preference optimisation: the best answer of a prompt against its worst."""

    model_config = ConfigDict(title="DPO")
    by: Literal["value", "reward"] = Field("value", description="what ranks an image's answers: mean V, or mean reward")
    beta: float = Field(0.1, gt=0, le=10, description="strength of the reference")
    min_gap: float = Field(0.0, ge=0, description="pairs that differ less in what ranks them are left out")


class GrpoSettings(StageConfig):
    """Group-relative policy optimisation: new answers, each rewarded relative to the others to its prompt."""

    model_config = ConfigDict(title="GRPO")
    reward: Literal["score", "value"] = Field(
        "score", description="mean shaped reward of an answer's sentences, or mean V"
    )
    generations: int = Field(4, ge=2, le=64, description="answers per prompt")
    temperature: float = Field(1.0, gt=0, le=5, description="sampling temperature of the answers")
    max_new_tokens: int = Field(160, ge=1, le=32768, description="token limit of an answer")
    beta: float = Field(0.0, ge=0, le=10, description="weight of the divergence from the reference")


class FisaoSettings(StageConfig):
    """PPO with a reward for every object word (FiSAO, arXiv 2410.14148); its constants could not be read, these are ours."""

    model_config = ConfigDict(title="FiSAO")
    rewards: Literal["tokens", "sentences"] = Field(
        "tokens",
        description="tokens: each object word (FiSAO); sentences: each sentence that names objects, by the same rule: PPO that "
        "differs in nothing else",
    )
    baselines: Literal["annotations", "split"] = Field(
        "annotations",
        description="mean scores of correct and hallucinated words; annotations: by CHAIR on the round's own rollouts (the "
        "paper); split: by Otsu's threshold on the scores, no annotation is read",
    )
    margin: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Margin (lambda)",
        description="how far beyond a baseline a word's score must lie",
    )
    clip: float = Field(0.2, gt=0, lt=1, description="clipping range of the probability ratio")
    kl: float = Field(0.05, ge=0, le=10, description="weight of the divergence from the reference, per token")
    gamma: float = Field(1.0, ge=0, le=1, description="discount per token")
    gae_lambda: float = Field(
        0.95, ge=0, le=1, title="GAE lambda", description="lambda of generalised advantage estimation"
    )
    value_weight: float = Field(0.5, ge=0, le=10, description="weight of the critic's loss")
    passes: int = Field(2, ge=1, le=100, description="passes over the answers of an iteration")
    iterations: int = Field(2, ge=1, le=100, description="each learns from new answers; for the first one see first")
    first: Literal["drawn", "rollouts"] = Field(
        "drawn",
        description="what the first iteration learns from; drawn: new answers of the policy, as the others; rollouts: the "
        "round's, tokenised again from their texts and drawn otherwise than PPO assumes (off-policy)",
    )
    temperature: float = Field(1.0, gt=0, le=5, description="sampling temperature of new answers")


class TrainingSettings(StageConfig):
    """What all methods share; loss on the answer's tokens only."""

    section: ClassVar[str] = "finetune"
    train: Literal["full", "lora"] = Field("lora", description="all weights, or adapters that are merged afterwards")
    lr: float = Field(1e-5, gt=0, le=1, title="Learning rate", description="learning rate (VisVM: 1e-6, full)")
    epochs: float = Field(1.0, gt=0, le=1000, description="passes over the examples; fisao uses fisao.passes instead")
    batch_size: int = Field(
        16, ge=1, description="captions per step; dpo, sentinel: pairs; grpo: answers, in whole groups"
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        title="Micro-batch size",
        description="how many of them are read at once, their gradients summed to batch_size; null: halved from batch_size "
        "when memory runs out",
    )
    warmup_share: float = Field(
        0.03, ge=0, lt=1, description="share of the steps with linear warm-up; then linear decay"
    )
    lora_rank: int = Field(16, ge=1, le=1024, title="LoRA rank", description="rank of the adapters where train is lora")
    save_dtype: Literal["auto", "policy", "float32"] = Field(
        "auto",
        title="Saved number format",
        description="of the trained checkpoint; policy: policy.dtype; float32: every bit of the update; auto: float32 where "
        "policy.dtype would keep less than half of it; what is saved in float32 is loaded so",
    )
    checkpoint_steps: int = Field(200, ge=1, description="steps between resume points", json_schema_extra=NOT_SEMANTIC)


# A mapping without a method is sft's: the schema has to say so, or it would fit every method.
NAMES_ITS_METHOD: dict[str, Any] = {"required": ["method"]}


class SftConfig(TrainingSettings):
    """Supervised fine-tuning on the captions that search chose."""

    model_config = ConfigDict(title="Supervised fine-tuning")
    method: Literal["sft"] = Field("sft", description="learn the captions that search chose")
    replay: ReplayConfig = Field(
        ReplayConfig(), title="Replay", description="other material among the captions, against forgetting"
    )


class DpoConfig(TrainingSettings):
    """Direct preference optimisation on the round's own rollouts."""

    model_config = ConfigDict(title="DPO", json_schema_extra=NAMES_ITS_METHOD)
    method: Literal["dpo"] = Field("dpo", description="learn to prefer the best answer of a prompt to its worst")
    dpo: DpoSettings = Field(DpoSettings(), title="DPO", description="how preferences are built and learned")


class GrpoConfig(TrainingSettings):
    """Group-relative policy optimisation on new answers."""

    model_config = ConfigDict(title="GRPO", json_schema_extra=NAMES_ITS_METHOD)
    method: Literal["grpo"] = Field("grpo", description="learn from groups of new answers, rewarded")
    grpo: GrpoSettings = Field(GrpoSettings(), title="GRPO", description="how answers are drawn and rewarded")

    @model_validator(mode="after")
    def _has_whole_groups(self) -> GrpoConfig:
        if self.batch_size % self.grpo.generations:
            raise ValueError(
                f"batch_size is {self.batch_size} and grpo.generations {self.grpo.generations}: a step holds whole groups; "
                f"set batch_size to a multiple of {self.grpo.generations}"
            )
        return self


class FisaoConfig(TrainingSettings):
    """PPO with a reward for every object word of an answer."""

    model_config = ConfigDict(title="FiSAO", json_schema_extra=NAMES_ITS_METHOD)
    method: Literal["fisao"] = Field("fisao", description="PPO with a reward for every object word")
    fisao: FisaoSettings = Field(FisaoSettings(), title="FiSAO", description="rewards of object words, and PPO")


class SentinelConfig(TrainingSettings):
    """Direct preference optimisation of single sentences, on the candidates of a search."""

    model_config = ConfigDict(title="SENTINEL", json_schema_extra=NAMES_ITS_METHOD)
    method: Literal["sentinel"] = Field(
        "sentinel",
        description="learn to prefer a true next sentence to a hallucinated one after the same answer so far",
    )
    sentinel: SentinelSettings = Field(
        SentinelSettings(), title="SENTINEL", description="how candidates are judged, paired and learned"
    )


def _sft_by_default(settings: Any) -> Any:
    if isinstance(settings, Mapping) and "method" not in settings:
        return {"method": "sft", **settings}
    return settings


FinetuneConfig = Annotated[
    SftConfig | DpoConfig | GrpoConfig | FisaoConfig | SentinelConfig,
    Field(discriminator="method"),
    BeforeValidator(_sft_by_default),
]

Method = TypeVar("Method", bound=TrainingSettings)


def switch_method(config: TrainingSettings, method: type[Method], **settings: Any) -> Method:
    """Settings of a method that keep what it shares with `config`'s; the rest is at its defaults, but for `settings`.

    Raises:
        pydantic.ValidationError: a setting that the method does not have, or a value out of its bounds.
    """
    shared = (method.model_fields.keys() & type(config).model_fields.keys()) - {"method"}
    return method.model_validate({**config.model_dump(include=shared), **settings})
