"""How fast, not what: device, batch sizes, shards.

A flow opens `use_runtime`; stages, and what they load, call `current_runtime`. No stage takes it as an argument. With a
16-bit model the batch's shape changes rows; `identity.batch_settings` puts it into the key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar

from pydantic import ConfigDict, Field

from tasks.stage.config import NOT_SEMANTIC, StageConfig


class RuntimeConfig(StageConfig):
    """How fast, not what; with 16-bit models the shape of a batch changes rows and is in the key."""

    section: ClassVar[str] = "runtime"
    model_config = ConfigDict(title="Runtime")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="auto: a GPU if there is one",
        json_schema_extra=NOT_SEMANTIC,
    )
    batch_size: int = Field(16, ge=1, le=65536, description="images in flight", json_schema_extra=NOT_SEMANTIC)
    token_budget: int = Field(
        0,
        ge=0,
        description="tokens of key-value cache that are decoded over at once; 0: until memory runs out, then half of it",
        json_schema_extra=NOT_SEMANTIC,
    )
    shards: int = Field(
        1,
        ge=1,
        le=4096,
        description="parts a stage is split into; each resumes by itself",
        json_schema_extra=NOT_SEMANTIC,
    )
    threads: int = Field(
        0, ge=0, le=1024, description="of torch on the CPU; 0: torch decides", json_schema_extra=NOT_SEMANTIC
    )


_runtime: ContextVar[RuntimeConfig] = ContextVar("runtime", default=RuntimeConfig())  # noqa: B039  frozen


@contextmanager
def use_runtime(runtime: RuntimeConfig) -> Iterator[None]:
    """Stage calls inside run like this, in whatever thread or process they are carried out."""
    token = _runtime.set(runtime)
    try:
        yield
    finally:
        _runtime.reset(token)


def current_runtime() -> RuntimeConfig:
    """The settings of the innermost `use_runtime`; the defaults outside."""
    return _runtime.get()
