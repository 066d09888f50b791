"""A profile, or a section of it, with other settings, validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from flows.profiles.loading import Profile

Config = TypeVar("Config", bound=BaseModel)
UNCHECKED_VALUE = {"min_spearman": -1.0, "min_spread": 0.0}  # turns the health check of V off


def varied(profile: Profile, **sections: Mapping[str, Any]) -> Profile:
    """The profile with other settings: `varied(profile, value={"gamma": 0.5})`."""
    return profile.model_copy(
        update={name: changed(getattr(profile, name), settings) for name, settings in sections.items()}
    )


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """A section with other settings."""
    return type(config).model_validate({**config.model_dump(), **settings})
