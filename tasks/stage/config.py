"""What every stage's configuration is made of: frozen models whose fields have descriptions."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

NOT_SEMANTIC: dict[str, Any] = {"semantic": False}  # how fast, never what: left out of cache keys


class StageConfig(BaseModel):
    """Base of all: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    section: ClassVar[str] = ""  # where it stands in a profile, for messages; "": not a section
