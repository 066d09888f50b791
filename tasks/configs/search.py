"""Search strategies and their settings."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import ConfigDict, Field, field_validator

from tasks.core.search import registry
from tasks.stage.config import StageConfig


def _strategy_names(schema: dict[str, Any]) -> None:
    schema["enum"] = registry.names()


class SearchConfig(StageConfig):
    """A search strategy and its settings."""

    section: ClassVar[str] = "search"
    model_config = ConfigDict(title="Search")
    strategy: str = Field(
        "visvm", description="how captions are searched for; docs/strategies.md", json_schema_extra=_strategy_names
    )
    candidates: int = Field(
        6, ge=1, le=256, description="candidates per step: one greedy, the others at the temperatures"
    )
    temperatures: tuple[Annotated[float, Field(gt=0, le=5)], ...] = Field(
        (0.1, 0.3, 0.5, 0.7, 0.9), min_length=1, description="spread evenly over the candidates"
    )
    greedy: bool = Field(True, description="one candidate per step is greedy; else all are sampled at the temperatures")
    top_p: float = Field(0.9, gt=0, le=1, title="Top p", description="nucleus mass kept")
    stop: Literal["reward", "vote", "chosen", "value"] = Field(
        "reward",
        description="reward: when no candidate reaches the margin; vote: when half of them end; "
        "chosen: when the best one ends; value: when the best one's value is below that of stopping (0)",
    )
    redundancy: float = Field(
        0.0,
        ge=0,
        le=100,
        description="penalty on a candidate's score or value, times the share of it that repeats earlier text",
    )
    by: Literal["score", "value", "judge"] | None = Field(
        None, description="what ranks answers in best_of_n and vimar; none: the strategy's own default"
    )
    weak_quantile: float = Field(
        0.3, ge=0, le=1, description="vimar replaces sentences whose value is under this quantile of held-out ones"
    )
    max_sentences: int = Field(20, ge=1, le=1000, description="hard limit of a caption")
    max_sentence_tokens: int = Field(128, ge=4, le=4096, description="token limit of one candidate sentence")
    max_new_tokens: int = Field(1024, ge=1, le=32768, description="token limit of whole answers (greedy, best_of_n)")
    published: bool = Field(False, description="do as the released code does, defects included; docs/strategies.md")
    options: dict[str, bool | int | float | str] = Field({}, description="the strategy's own; docs/strategies.md")

    @field_validator("strategy")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in registry.names():
            registry.find(name)  # its error lists the names
        return name


def sentence_searches() -> list[str]:
    """Strategies, built-in and installed, that grow an answer sentence by sentence."""
    return [name for name in registry.names() if registry.grows_by_sentences(name)]


def search_config(config: SearchConfig, spec: str) -> SearchConfig:
    """`NAME`, or `NAME:key=value,key=value`: another strategy with the settings of `config`, but for those named.

    A key that is no setting of the search is one of the strategy's own options.

    Raises:
        ValueError: for what is no such text, or a value out of its bounds.
    """
    name, _, rest = spec.partition(":")
    settings: dict[str, Any] = {"strategy": name}
    options = {} if name != config.strategy else dict(config.options)
    for part in filter(None, rest.split(",")):
        key, equals, text = part.partition("=")
        if not equals:
            raise ValueError(f"{spec!r}: {part!r} is no key=value; write for example best_of_n:by=value,candidates=4")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{spec!r}: {text!r} is no value ({error})") from error
        if key in SearchConfig.model_fields:
            settings[key] = value
        else:
            options[key] = value
    return SearchConfig.model_validate({**config.model_dump(), "options": options, **settings})
