"""A search strategy with its models loaded: what the search stage and the caption command share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from storage import checkpoints, lake
from storage.artifacts import ArtifactRef
from storage.schema import Sample, Value
from tasks.configs.policy import PolicyConfig
from tasks.configs.search import SearchConfig
from tasks.core.search.contract import Settings, Task
from tasks.core.search.registry import find
from tasks.core.search.temperatures import spread_temperatures
from tasks.models.loading import load_policy, load_state_value, load_value
from tasks.models.scorers import load_scores
from tasks.stage.quarantine import StageInputError
from tasks.stage.runtime import RuntimeConfig

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.engine.guides import Values
    from tasks.core.models.policy import Policy
    from tasks.core.models.sentence_scores import Scores
    from tasks.core.search.contract import SearchResult

_MISSING = {
    "scorer": "scores texts: it needs a scorer",
    "margin": "needs the rewards' margin tau: run label first, or use stop: vote",
    "value": "is guided by a value model: train one, or use clip_prm",
    "weak": "needs to know what is weak: the held-out values of a value model, or with by=score the rewards' margin tau",
    "answers": "needs to know how answers score: run label first, or give its options reward_mean and reward_std",
}


class Guides(NamedTuple):
    """What may guide a search: the scorer with the rewards' margin, and a value model with its held-out values."""

    scorer: ArtifactRef | None = None
    tau: float | None = None
    value: ArtifactRef | None = None
    backbone: ArtifactRef | None = None  # the checkpoint that the value model stands on
    values: ArtifactRef | None = None
    answers: tuple[float, float] | None = None  # mean and deviation of the rollouts' mean scores


class Searcher:
    """A strategy with its models loaded: images and samples in, captions with traces out."""

    def __init__(
        self,
        config: SearchConfig,
        model: PolicyConfig,
        policy: ArtifactRef,
        guides: Guides,
        *,
        seed: int,
        runtime: RuntimeConfig,
    ) -> None:
        """Load what the strategy needs.

        Raises:
            StageInputError: something that it needs is missing.
        """
        from tasks.core.engine.fallback import open_decoder
        from tasks.core.engine.scheduler import SearchScheduler

        self.strategy, self.seed = find(config.strategy), seed
        self.settings = settings_of(config, guides)
        needs = needs_of(config, self.settings)
        has = {
            "scorer": guides.scorer is not None,
            "margin": guides.tau is not None,
            "value": guides.value is not None and guides.backbone is not None,
            "weak": self.settings.refine_below > float("-inf"),
            "answers": guides.answers is not None,
        }
        for need in sorted(needs):
            if not has.get(need):
                raise StageInputError(f"search.strategy {config.strategy} {_MISSING.get(need, f'needs {need}')}")
        self._work: Counter[str] = Counter()
        scores: Scores | None = None
        if "scorer" in needs and guides.scorer is not None:
            scores = load_scores(guides.scorer, runtime, self._work)
        loaded = load_policy(model, policy, runtime)
        self.decoder = open_decoder(
            loaded,
            kv_token_budget=runtime.token_budget or None,
            state_layer=_layer(guides.value) if "value" in needs else None,
        )
        values = self._values(guides, model, loaded, runtime) if "value" in needs else None
        self.scheduler = SearchScheduler(
            self.decoder, in_flight=runtime.batch_size, top_p=config.top_p, scores=scores, values=values
        )

    def _values(self, guides: Guides, model: PolicyConfig, policy: Policy, runtime: RuntimeConfig) -> Values:
        """Whichever kind of value model it is."""
        from tasks.core.engine.guides import StateValues, turn_values

        assert guides.value is not None
        assert guides.backbone is not None
        if _layer(guides.value) is None:
            return turn_values(load_value(model, guides.value, guides.backbone, runtime), self._work)
        if guides.backbone.digest != policy.digest:
            raise StageInputError(
                f"the value model reads the hidden states of policy {guides.backbone.digest[:12]}, and captions are searched "
                f"with {policy.digest[:12]}: train it on this one, or use value.reads=image_and_text"
            )
        return StateValues(load_state_value(guides.value, runtime), self.decoder)

    @property
    def counters(self) -> Counter[str]:
        """Work done so far."""
        return self.decoder.counters + self.scheduler.counters + self._work

    def run(
        self, samples: Sequence[Sample], picture: Callable[[Sample], PIL.Image.Image]
    ) -> Iterator[tuple[int, SearchResult]]:
        """(index of a sample, its caption), each as soon as it is there; images are loaded when they are needed."""
        from tasks.core.engine.scheduler import Job

        return self.scheduler.run(
            Job(
                index,
                image=lambda sample=sample: picture(sample),  # type: ignore[misc]
                prompt=sample.prompt,
                search=self.strategy.search(Task(sample.prompt, self.settings)),
                seed=("search", self.seed, sample.sample_id),
            )
            for index, sample in enumerate(samples)
        )


def needs_of(config: SearchConfig, settings: Settings) -> frozenset[str]:
    """What a search needs beyond a policy: scorer, margin, value, weak, answers. Its own options are checked, too.

    Raises:
        StageInputError: an option that the strategy doesn't know, or a value that it can't use.
    """
    strategy = find(config.strategy)
    try:
        needs = strategy.needs(settings)
        # A search reads its options first; what the run has not measured yet is replaced by a stand-in.
        measured = _with_answers(settings, (0.0, 1.0)) if "answers" in needs else settings
        next(strategy.search(Task("", measured)), None)
    except ValueError as error:
        raise StageInputError(f"search.strategy {config.strategy}: {error}") from error
    return needs


def settings_of(config: SearchConfig, guides: Guides) -> Settings:
    """The strategy's settings: those of the profile, and the margins that this run has measured."""
    weak = guides.tau
    if config.by != "score" and guides.values is not None:
        held_out = [row.value for row in lake.read_rows(Value, guides.values)]
        weak = float(np.quantile(held_out, config.weak_quantile)) if held_out else None
    settings = Settings(
        temperatures=spread_temperatures(config.candidates, config.temperatures, greedy=config.greedy),
        stop=config.stop,
        margin=float("-inf") if guides.tau is None else guides.tau,
        refine_below=float("-inf") if weak is None else weak,
        redundancy=config.redundancy,
        by=config.by,
        max_sentences=config.max_sentences,
        max_sentence_tokens=config.max_sentence_tokens,
        max_new_tokens=config.max_new_tokens,
        published=config.published,
        options=config.options,
    )
    if guides.answers is None or "answers" not in find(config.strategy).needs(settings):
        return settings
    return _with_answers(settings, guides.answers)


def _with_answers(settings: Settings, answers: tuple[float, float]) -> Settings:
    """The mean and deviation of a run's answers as options, unless the options say otherwise."""
    measured = dict(zip(("reward_mean", "reward_std"), answers, strict=True))
    return replace(settings, options={**measured, **settings.options})


def _layer(value: ArtifactRef | None) -> int | None:
    """The layer of the policy's states that a value model reads; None: it reads image and text itself."""
    from tasks.core.models.value import read_spec

    if value is None:
        return None
    spec = read_spec(checkpoints.folder(value))
    return spec.layer if spec.reads == "policy_states" else None
