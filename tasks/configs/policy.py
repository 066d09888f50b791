"""The vision-language model to improve."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

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
    max_pixels: int | None = Field(
        None,
        ge=784,
        description="larger images are scaled down to this many pixels before the processor; none: as they come",
    )
    trust_remote_code: bool = Field(False, description="run code that the checkpoint brings; leave it off")
