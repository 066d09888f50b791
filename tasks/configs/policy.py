"""The vision-language model to improve."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator

from storage.artifacts import canonical_json
from tasks.core.models.policy_settings import PolicySettings
from tasks.stage.config import NOT_SEMANTIC, StageConfig


class PolicyConfig(StageConfig):
    """The vision-language model to improve."""

    section: ClassVar[str] = "policy"
    model_config = ConfigDict(title="Policy")
    # Not part of a key: its digest is an input of every stage that loads it.
    checkpoint: str = Field(
        min_length=1,
        description="a local folder or a hub id that AutoModelForImageTextToText loads",
        json_schema_extra=NOT_SEMANTIC,
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="precision of weights and decoding")
    trust_remote_code: bool = Field(False, description="run code that the checkpoint brings; leave it off")
    template: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the chat template, for example {enable_thinking: false}"
    )
    system_prompt: str | None = Field(None, description="a system turn before every prompt; null: none of ours")
    max_pixels: int | None = Field(
        None, ge=1, description="pixels of the largest image that the processor makes; null: the checkpoint's own"
    )
    top_k: int | None = Field(
        None,
        ge=0,
        description="likeliest tokens that are drawn from, 0 for all; null: as the checkpoint's generation config",
    )

    @field_validator("template")
    @classmethod
    def _not_what_a_prompt_sets(cls, template: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(
            set(template) & {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
        )
        if ours:
            raise ValueError(f"{', '.join(ours)}: set with every prompt, so no profile can")
        return template

    @property
    def settings(self) -> PolicySettings:
        """What is set beside the weights."""
        return PolicySettings(canonical_json(self.template), self.system_prompt, self.max_pixels, self.top_k)
