"""Search strategies and their settings."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import ConfigDict, Field, field_validator, model_validator

from tasks.core.search import registry
from tasks.stage.config import StageConfig

log = logging.getLogger(__name__)

GUIDED = ("visvm", "clip_prm")  # the strategies that go sentence by sentence

MOST_CANDIDATES = 256
# A value of the former setting `stop` -> what it is now.
FORMER_STOPS: dict[str, dict[str, str | float]] = {
    "reward": {"end": "policy", "filter": "margin"},
    "vote": {"end": "vote", "filter": "none"},
    "chosen": {"end": "policy", "filter": "none"},
    "value": {"end": "guide", "end_value": 0.0, "filter": "none"},
}


def _strategy_names(schema: dict[str, Any]) -> None:
    schema["enum"] = registry.names()


class SearchConfig(StageConfig):
    """A search strategy and its settings."""

    section: ClassVar[str] = "search"
    belongs_to: ClassVar[dict[str, str]] = {"options": "strategy"}  # dropped where a profile's strategy is changed
    model_config = ConfigDict(title="Search")
    strategy: str = Field(
        "visvm", description="how captions are searched for; docs/strategies.md", json_schema_extra=_strategy_names
    )
    candidates: int = Field(
        6, ge=1, le=MOST_CANDIDATES, description="candidates per step: one greedy, the others at the temperatures"
    )
    temperatures: tuple[Annotated[float, Field(gt=0, le=5)], ...] = Field(
        (0.1, 0.3, 0.5, 0.7, 0.9), min_length=1, description="spread evenly over the candidates"
    )
    greedy: bool = Field(True, description="one candidate per step is greedy; else all are sampled at the temperatures")
    top_p: float = Field(0.9, gt=0, le=1, title="Top p", description="nucleus mass kept")
    end: Literal["action", "policy", "vote", "guide"] = Field(
        "action",
        description="what ends a guided search; action: the policy proposes to end and no candidate is worth more than "
        "end_value; policy: the chosen sentence ends the answer, as in the papers; vote: half of the candidates end; "
        "guide: no candidate is worth end_value",
    )
    end_value: float | None = Field(
        None,
        ge=-1e6,
        le=1e6,
        description="what ending is worth on the scale of the guide; none: 0 for a value model of rewards that a margin "
        "shapes, else the margin",
    )
    filter: Literal["none", "margin"] = Field(
        "none", description="margin: only candidates whose score reaches the rewards' margin are eligible"
    )
    guide: Literal["value", "random"] = Field(
        "value", description="random: draws from the value model's held-out values in its place, a control"
    )
    choose: Literal["best", "greedy"] = Field(
        "best", description="greedy: the greedy candidate is taken and the guide only decides about the end, a control"
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

    @model_validator(mode="before")
    @classmethod
    def _in_present_spelling(cls, settings: Any) -> Any:
        return present_spelling(settings) if isinstance(settings, Mapping) else settings

    @model_validator(mode="after")
    def _has_a_greedy_candidate(self) -> SearchConfig:
        if self.choose == "greedy" and not self.greedy:
            raise ValueError("choose=greedy takes the greedy candidate and greedy=false draws none: set greedy=true")
        return self

    @field_validator("strategy")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in registry.names():
            registry.find(name)  # its error lists the names
        return name


def search_name(config: SearchConfig, spec: str = "") -> str:
    """What results call a search: its spec, or its strategy's name. A guided search that filters by the margin is never called
    by its plain name: the filter chooses, too.
    """
    name = spec or config.strategy
    filtered = config.filter == "margin" and config.strategy in GUIDED and not config.published
    if not filtered or "filter=margin" in name or "stop=reward" in name:
        return name
    return extended(name, "filter=margin")


def extended(spec: str, *settings: str) -> str:
    """`NAME` or `NAME:key=value` with more settings, each `key=value`."""
    return f"{spec}{',' if ':' in spec else ':'}{','.join(settings)}" if settings else spec


def present_spelling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a search with the former `stop` in its present spelling, of which a warning tells.

    Raises:
        ValueError: for an unknown value of `stop`, or one beside settings that have taken its place.
    """
    present = dict(settings)
    if "stop" not in present:
        return present
    check_spelling(present)
    stop = present.pop("stop")
    spelling = FORMER_STOPS.get(stop) if isinstance(stop, str) else None
    if spelling is None:
        raise ValueError(
            f"search.stop is {stop!r} and was {', '.join(FORMER_STOPS)}; it has become search.end: "
            f"action, policy, vote or guide"
        )
    _warn_of_former(stop)
    return present | spelling


def check_spelling(names: Collection[str]) -> None:
    """Refuse names of a search's settings that hold both `stop` and what has taken its place, with a ValueError."""
    if "stop" in names and (beside := sorted({*names} & {"end", "end_value", "filter"})):
        raise ValueError(f"search.stop has become search.end and search.filter: take out stop, or {', '.join(beside)}")


@cache  # a spec is read many times
def _warn_of_former(stop: str) -> None:
    changed = {name: value for name, value in FORMER_STOPS[stop].items() if value != "none"}
    spelling = ",".join(
        f"{name}={value:g}" if name == "end_value" else f"{name}={value}" for name, value in changed.items()
    )
    log.warning("search.stop=%s is now search %s; the former spelling will be refused one day", stop, spelling)


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
        if key in SearchConfig.model_fields or key == "stop":
            settings[key] = value
        else:
            options[key] = value
    return SearchConfig.model_validate({**config.model_dump(), "options": options, **present_spelling(settings)})
