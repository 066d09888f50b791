"""How the value model is built and trained."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from tasks.stage.config import NOT_SEMANTIC, StageConfig


class ValueConfig(StageConfig):
    """Temporal-difference training of V(image, sentence)."""

    section: ClassVar[str] = "value"
    model_config = ConfigDict(title="Value model")
    reads: Literal["image_and_text", "policy_states"] = Field(
        "image_and_text",
        description="image_and_text: a network of its own reads the image and a user turn (VisVM); policy_states: a small head "
        "on the policy's hidden state at the sentence's end, which costs a search next to nothing; its state is always "
        "everything up to there, and lr 1e-3 with 5 epochs suits it",
    )
    train: Literal["full", "lora", "frozen"] = Field(
        "lora", description="what of the backbone learns beside the head; without meaning for policy_states"
    )
    state: Literal["sentence", "prefix"] = Field(
        "sentence", description="what V reads: the sentence, or all up to it; without meaning for policy_states"
    )
    gamma: float = Field(0.9, ge=0, lt=1, title="Discount (gamma)", description="discount a sentence")
    target: Literal["td0", "td_lambda", "mc"] = Field(
        "td0",
        description="what V is regressed on: td0, the reward and the next value; td_lambda, returns that mix all horizons; mc, "
        "the whole return as it was, without a bootstrap",
    )
    trace: float = Field(
        0.9, ge=0, le=1, title="Trace (lambda)", description="of td_lambda: 0 is td0, 1 the whole return"
    )
    terminal: Literal["mean_to_go", "zero_terminal", "optimal_stopping", "bootstrap_forever"] = Field(
        "mean_to_go",
        description="what follows the last sentence: mean_to_go, V is a mean of rewards; zero_terminal, their sum; "
        "optimal_stopping, their sum up to where ending is worth more; bootstrap_forever is the released behaviour",
    )
    layer: int = Field(
        -1,
        le=-1,
        description="hidden layer the head reads, from the end; -1: the last, after the final norm, as the language head does",
    )
    pooling: Literal["last", "mean"] = Field(
        "last", description="last: the state of the last token; mean: over the text's tokens; not for policy_states"
    )
    lr: float = Field(1e-4, gt=0, le=1, title="Learning rate", description="learning rate")
    epochs: int = Field(1, ge=1, le=1000, description="passes over the transitions")
    batch_size: int = Field(32, ge=2, description="transitions a step")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="transitions in one forward; batch_size is reached by accumulation; none: found automatically",
        json_schema_extra=NOT_SEMANTIC,
    )
    target_decay: float = Field(
        0.95, ge=0, lt=1, description="Polyak decay of the target network; 0: no target network"
    )
    lora_rank: int = Field(
        16,
        ge=1,
        le=1024,
        title="LoRA rank",
        description="rank of the adapters where train is lora; without meaning for policy_states",
    )
    min_spearman: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="the interval of the held-out rank correlation with the return, within an image and a position, must lie "
        "above this, or the stage fails; 0 is chance; -1: not checked",
    )
    min_spread: float = Field(
        1e-4, ge=0, description="least held-out standard deviation of V; below: the values have collapsed"
    )
    action: Literal["stop", "warn"] = Field("stop", description="what a failed check of V does to the run")
    ground_truth: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="reward of every sentence of the training images' own annotated captions, learned beside the policy's "
        "answers (ViMaR: 0.27); none: no annotation is read",
    )
    published: bool = Field(
        False,
        description="train as the released code does, for comparison only: every value is regressed on the whole batch's "
        "rewards, no target network, no end",
    )
    guided_rounds: int = Field(
        0, ge=0, le=100, description="times V is trained again, on the captions that a search with it chose as well"
    )
    checkpoint_steps: int = Field(500, ge=1, description="steps between resume points", json_schema_extra=NOT_SEMANTIC)
