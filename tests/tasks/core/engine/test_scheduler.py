"""Many searches on one scheduler: each gives the result that it gives alone, and nothing is read in vain."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest

from tasks.core.engine.decoder import Decoder
from tasks.core.engine.guides import turn_values
from tasks.core.engine.scheduler import Job, SearchScheduler
from tasks.core.models.policy import Policy, load_policy
from tasks.core.models.sentence_scores import Cosines
from tasks.core.models.value import ValueModel, ValueSpec
from tasks.core.search.contract import SearchResult, Settings, Task
from tasks.core.search.registry import BUILT_IN, find
from tests.support.paths import DEMO
from tests.support.tiny_models import tiny

SETTINGS = Settings(
    (0.0, 0.6, 1.0), margin=0.2, refine_below=0.2, max_sentences=3, max_sentence_tokens=24, max_new_tokens=40
)
STRATEGIES = [*BUILT_IN, "best_of_n judge", "best_of_n value", "vimar score", "visvm value"]


@pytest.fixture(scope="module")
def demo_value() -> ValueModel:
    return ValueModel(load_policy(DEMO / "policy", digest="demo"), ValueSpec("demo", "frozen", -1, "prefix"))


def settings_of(name: str) -> tuple[str, Settings]:
    """A strategy and its settings; a second word in the name is what ranks its candidates."""
    strategy, _, by = name.partition(" ")
    more: dict[str, Any] = {"end": "guide", "end_value": 0.0} if strategy == "visvm" and by else {"by": by or None}
    if strategy == "swires":
        more["options"] = {"reward_mean": 0.2, "reward_std": 0.1}
    return strategy, Settings(**{**vars(SETTINGS), **more})


def jobs(name: str, pictures, prompts, loaded: list[int] | None = None) -> list[Job]:
    strategy, settings = settings_of(name)

    def image(index: int) -> Any:
        if loaded is not None:
            loaded.append(index)
        return pictures[index]

    return [
        Job(i, partial(image, i), prompt, find(strategy).search(Task(prompt, settings)), ("desk", i))
        for i, prompt in enumerate(prompts)
    ]


def scheduler_of(policy: Policy, scorer=None, value_model=None, in_flight: int = 8, **options: Any) -> SearchScheduler:
    counters: Counter[str] = Counter()
    scheduler = SearchScheduler(
        Decoder(policy, **options),
        in_flight=in_flight,
        top_p=0.9,
        scores=Cosines(scorer, counters) if scorer else None,
        values=turn_values(value_model, counters) if value_model else None,
    )
    scheduler.objects = Named()
    return scheduler


class Named:
    """Completeness without a detector: words of the answer so far, forty are all."""

    def shares(self, images: Any, items: Any) -> list[float]:
        return [min(1.0, len(f"{before} {text}".split()) / 40) for _, before, text in items]

    def forget(self, job: Any) -> None:
        """Nothing is kept."""


def rounded(results: dict[int, SearchResult]) -> dict[int, tuple]:
    """All of it; scores and values may differ in the last bits between batches."""
    return {
        index: (result.text, result.stop_reason, [
            (row.step, row.candidate, row.proposal, row.chosen, row.stop, row.phase,
             *(None if n is None else round(n, 4) for n in (row.score, row.value)))
            for row in result.trace
        ])
        for index, result in sorted(results.items())
    }  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_finds_in_company_what_it_finds_alone(
    policy, scorer, demo_value, pictures, prompts, name: str
) -> None:
    def find_all(in_flight: int) -> dict[int, SearchResult]:
        scheduler = scheduler_of(policy, scorer, demo_value, in_flight)
        return dict(scheduler.run(jobs(name, pictures[:6], prompts[:6])))

    together, alone = find_all(8), find_all(1)
    assert rounded(together) == rounded(alone)
    assert len(together) == 6
    for result in together.values():
        assert result.text and result.stop_reason
        assert all(row.proposal.handle is None for row in result.trace), "a trace holds on to the cache"


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_on_positions_of_three_axes(scorer, pictures, prompts, name: str) -> None:
    own = tiny("qwen2_vl")
    guide = ValueModel(own, ValueSpec("tiny", "frozen", -1, "sentence"))
    small = [picture.resize(size) for picture, size in zip(pictures, [(56, 40), (28, 60), (80, 80)], strict=False)]

    def find_all(in_flight: int) -> dict[int, SearchResult]:
        return dict(scheduler_of(own, scorer, guide, in_flight).run(jobs(name, small, prompts[:3])))

    assert rounded(find_all(3)) == rounded(find_all(1))


@pytest.mark.parametrize("in_flight", [1, 3, 16])
def test_images_are_loaded_when_they_are_admitted_and_read_once(
    policy, scorer, pictures, prompts, in_flight: int
) -> None:
    loaded: list[int] = []
    scheduler = scheduler_of(policy, scorer, in_flight=in_flight, regroup_threshold=0.9)
    results: dict[int, SearchResult] = {}
    for index, result in scheduler.run(iter(jobs("clip_prm", pictures, prompts, loaded))):
        results[index] = result
        assert len(loaded) <= len(results) + 2 * in_flight
    assert loaded == list(range(16))
    assert rounded(results) == rounded(dict(scheduler_of(policy, scorer).run(jobs("clip_prm", pictures, prompts))))
    counters = scheduler.decoder.counters
    assert counters["vision_encodes"] == 16
    assert counters["prefill_tokens"] == int(policy.inputs(pictures, prompts)["attention_mask"].sum())
    assert counters["decode_tokens"] == sum(row.proposal.drawn for result in results.values() for row in result.trace)
    assert scheduler._running == {} and scheduler.scores._images == {}, "a finished search is not forgotten"


def test_searches_with_different_requests_share_a_scheduler(policy, scorer, demo_value, pictures, prompts) -> None:
    names = STRATEGIES[: len(prompts)]
    mixed = [jobs(name, pictures, prompts)[i] for i, name in enumerate(names)]
    together = dict(scheduler_of(policy, scorer, demo_value, in_flight=16).run(mixed))
    assert len(together) == len(mixed)
    for i, name in list(enumerate(names))[::4]:
        alone = scheduler_of(policy, scorer, demo_value).run([jobs(name, pictures, prompts)[i]])
        assert rounded(dict(alone)) == rounded({i: together[i]})
