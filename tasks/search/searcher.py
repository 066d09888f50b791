"""A search strategy with its models loaded: what the search stage and the caption command share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from storage import lake
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Sample, Value
from tasks.configs.search import SearchConfig
from tasks.core.search.contract import Settings, Task
from tasks.core.search.registry import find
from tasks.core.search.temperatures import spread_temperatures
from tasks.models.engine import jobs_of, open_engine
from tasks.models.handles import Guide, PolicyHandle, ValueHandle
from tasks.models.loading import layer_read, load_policy, load_state_value, load_value
from tasks.models.scorers import load_scores
from tasks.stage.quarantine import StageInputError

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.engine.guides import Values
    from tasks.core.models.object_list import Completeness
    from tasks.core.models.policy import Policy
    from tasks.core.models.sentence_scores import Scores
    from tasks.core.search.contract import SearchResult
    from tasks.core.search.requests import Search

_MISSING = {
    "scorer": "scores texts: it needs a scorer",
    "margin": "needs the rewards' margin: run shape_rewards first, or use end: vote",
    "end_value": "compares with what ending is worth: run shape_rewards first, or set search.end_value",
    "held_out": "draws from a value model's held-out values: train one",
    "value": "is guided by a value model: train one, or use clip_prm",
    "weak": "needs to know what is weak: the held-out values of a value model, or with by=score the rewards' margin",
    "objects": "needs the objects that were detected in the images: run detect first",
    "answers": "needs to know how answers score: run shape_rewards first, or give its options reward_mean and reward_std",
}


class Searcher:
    """A strategy with its models loaded: images and samples in, captions with traces out."""

    def __init__(self, config: SearchConfig, policy: PolicyHandle, guide: Guide, *, seed: int) -> None:
        """Load what the strategy needs, and refuse if something is missing."""
        self.strategy, self.seed = find(config.strategy), seed
        self.settings = settings_of(config, guide)
        needs = needs_of(config, self.settings)
        if "held_out" in needs:  # draws stand for V, which is not loaded
            needs -= {"value"}
        has = {
            "scorer": guide.scorer is not None,
            "margin": guide.margin is not None,
            "value": guide.value is not None,
            "end_value": self.settings.end_value is not None,
            "held_out": guide.held_out is not None,
            "weak": self.settings.refine_below > float("-inf"),
            "answers": guide.answer_scores is not None,
            "objects": guide.objects is not None,
        }
        for need in sorted(needs):
            if not has.get(need):
                raise StageInputError(f"search.strategy {config.strategy} {_MISSING.get(need, f'needs {need}')}")
        self._work: Counter[str] = Counter()
        self._names: Sequence[str] = ()  # of the samples that are searched
        scores: Scores | None = None
        if "scorer" in needs and guide.scorer is not None:
            scores = load_scores(guide.scorer, self._work)
        loaded = load_policy(policy)
        value = guide.value if "value" in needs else None
        layer = None if value is None else layer_read(value)
        self.scheduler = open_engine(loaded, top_p=config.top_p, scores=scores, state_layer=layer)
        if "objects" in needs and guide.objects is not None:
            self.scheduler.objects = self._completeness(guide.objects)
        if value is not None:
            self.scheduler.values = self._values(value, loaded)
        elif "held_out" in needs and guide.held_out is not None:
            self.scheduler.values = self._random_values(guide.held_out)

    def _values(self, value: ValueHandle, policy: Policy) -> Values:
        """Whichever kind of value model it is."""
        from tasks.core.engine.guides import StateValues, turn_values

        if layer_read(value) is None:
            return turn_values(load_value(value), self._work)
        value_backbone = value.value_backbone.checkpoint.digest
        if value_backbone != policy.digest:
            raise StageInputError(
                f"the value model reads the hidden states of policy {value_backbone[:12]}, and captions are searched "
                f"with {policy.digest[:12]}: train it on this one, or use value.reads=image_and_text"
            )
        return StateValues(load_state_value(value), self.scheduler.decoder)

    def _completeness(self, objects: ScorerCheckpoint) -> Completeness:
        """What was detected in the images."""
        from tasks.core.models.object_list import Completeness

        scores = load_scores(objects, self._work)
        if not isinstance(scores, Completeness):
            raise StageInputError(
                "a search weighs completeness by another reward: pass the output completeness of detect"
            )
        return scores

    def _random_values(self, held_out: Table[Value]) -> Values:
        """Draws in place of V."""
        from tasks.core.engine.random_values import RandomValues

        values = [row.value for row in lake.read_rows(Value, held_out)]
        if not values:
            raise StageInputError(
                "search.guide random draws from held-out values and there are none: raise sample.val_share"
            )
        return RandomValues(values, seed=self.seed, name=lambda job: self._names[cast(int, job)])

    @property
    def counters(self) -> Counter[str]:
        """Work done so far."""
        return self.scheduler.decoder.counters + self.scheduler.counters + self._work

    def run(
        self, samples: Sequence[Sample], picture: Callable[[Sample], PIL.Image.Image]
    ) -> Iterator[tuple[int, SearchResult]]:
        """(index of a sample, its caption), each as soon as it is there; images are loaded when they are needed."""
        self._names, seed = [sample.sample_id for sample in samples], ("search", self.seed)

        def search(sample: Sample) -> Search[SearchResult]:
            return self.strategy.search(Task(sample.prompt, self.settings, (*seed, sample.sample_id)))

        return self.scheduler.run(jobs_of(samples, picture, search, seed=seed))


def needs_of(config: SearchConfig, settings: Settings) -> frozenset[str]:
    """What a search needs beyond a policy, as `Strategy` lists it. Its own options are checked, too.

    One that is guided at random needs held_out beside value: what V says of held-out sentences.

    Raises:
        StageInputError: an option that the strategy doesn't know, or a value that it can't use.
    """
    strategy, needs = find(config.strategy), _own_needs(config, settings)
    try:
        # A search reads its options first; what the run has not measured yet is replaced by a stand-in.
        measured = _with_answers(settings, (0.0, 1.0)) if "answers" in needs else settings
        next(strategy.search(Task("", measured)), None)
    except ValueError as error:
        raise StageInputError(f"search.strategy {config.strategy}: {error}") from error
    if config.guide == "random":
        if "value" not in needs:
            raise StageInputError(f"search.guide random stands for V, and search.strategy {config.strategy} has none")
        return needs | {"held_out"}
    return needs


def _own_needs(config: SearchConfig, settings: Settings) -> frozenset[str]:
    try:
        return find(config.strategy).needs(settings)
    except ValueError as error:
        raise StageInputError(f"search.strategy {config.strategy}: {error}") from error


def settings_of(config: SearchConfig, guide: Guide) -> Settings:
    """What the strategy gets: the profile's settings, and margins as this run has measured them."""
    weak = guide.margin
    if config.by != "score" and guide.held_out is not None:
        held_out = [row.value for row in lake.read_rows(Value, guide.held_out)]
        weak = float(np.quantile(held_out, config.weak_quantile)) if held_out else None
    settings = Settings(
        temperatures=spread_temperatures(config.candidates, config.temperatures, greedy=config.greedy),
        end=config.end,
        end_value=config.end_value,
        filter=config.filter,
        choose=config.choose,
        margin=float("-inf") if guide.margin is None else guide.margin,
        refine_below=float("-inf") if weak is None else weak,
        redundancy=config.redundancy,
        by=config.by,
        max_sentences=config.max_sentences,
        max_sentence_tokens=config.max_sentence_tokens,
        max_new_tokens=config.max_new_tokens,
        published=config.published,
        options=config.options,
    )
    needs = _own_needs(config, settings)
    if "end_value" in needs:
        settings = replace(settings, end_value=guide.end_value)
    if guide.answer_scores is None or "answers" not in needs:
        return settings
    return _with_answers(settings, guide.answer_scores)


def _with_answers(settings: Settings, answers: tuple[float, float]) -> Settings:
    """The mean and deviation of a run's answers as options, unless the options say otherwise."""
    measured = dict(zip(("reward_mean", "reward_std"), answers, strict=True))
    return replace(settings, options={**measured, **settings.options})
