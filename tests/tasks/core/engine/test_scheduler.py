"""Many searches at one desk: each finds what it finds alone, whatever is beside it, and nothing is read for nothing."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest

from tasks.core.engine.decoder import Decoder
from tasks.core.engine.guides import turn_values
from tasks.core.engine.scheduler import Desk, Job
from tasks.core.models.policy import Policy, load_policy
from tasks.core.models.sentence_scores import Cosines
from tasks.core.models.value import ValueModel, ValueSpec
from tasks.core.search.contract import Found, Settings, Task
from tasks.core.search.registry import BUILT_IN, find
from tests.support.paths import DEMO
from tests.support.tiny_models import tiny

SETTINGS = Settings(
    (0.0, 0.6, 1.0), margin=0.2, weak_below=0.2, max_sentences=3, max_sentence_tokens=24, max_new_tokens=40
)
STRATEGIES = [*BUILT_IN, "best_of_n judge", "best_of_n value", "vimar score", "visvm value"]


@pytest.fixture(scope="module")
def demo_value() -> ValueModel:
    return ValueModel(load_policy(DEMO / "policy", digest="demo"), ValueSpec("demo", "frozen", -1, "prefix"))


def settings_of(name: str) -> tuple[str, Settings]:
    """A strategy, and settings that make it judge in another way where a second word says so."""
    strategy, _, by = name.partition(" ")
    more: dict[str, Any] = {"stop": "value"} if strategy == "visvm" and by else {"by": by or None}
    if strategy == "swires":
        more["options"] = {"reward_mean": 0.2, "reward_std": 0.1}
    return strategy, Settings(**{**vars(SETTINGS), **more})


def jobs(name: str, pictures, prompts, asked: list[int] | None = None) -> list[Job]:
    strategy, settings = settings_of(name)

    def image(index: int) -> Any:
        if asked is not None:
            asked.append(index)
        return pictures[index]

    return [
        Job(i, partial(image, i), prompt, find(strategy).search(Task(prompt, settings)), ("desk", i))
        for i, prompt in enumerate(prompts)
    ]


def desk_of(policy: Policy, scorer=None, value_model=None, in_flight: int = 8, **options: Any) -> Desk:
    counters: Counter[str] = Counter()
    return Desk(
        Decoder(policy, **options),
        in_flight=in_flight,
        top_p=0.9,
        scores=Cosines(scorer, counters) if scorer else None,
        values=turn_values(value_model, counters) if value_model else None,
    )


def rounded(found: dict[int, Found]) -> dict[int, tuple]:
    """All of it; scores and values may differ in the last bits between batches."""
    return {
        index: (one.text, one.stop_reason, [
            (row.step, row.candidate, row.proposal, row.chosen, row.stop, row.phase,
             *(None if n is None else round(n, 4) for n in (row.score, row.value)))
            for row in one.trace
        ])
        for index, one in sorted(found.items())
    }  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_finds_in_company_what_it_finds_alone(
    policy, scorer, demo_value, pictures, prompts, name: str
) -> None:
    def find_all(in_flight: int) -> dict[int, Found]:
        desk = desk_of(policy, scorer, demo_value, in_flight)
        return dict(desk.run(jobs(name, pictures[:6], prompts[:6])))

    together, alone = find_all(8), find_all(1)
    assert rounded(together) == rounded(alone)
    assert len(together) == 6
    for found in together.values():
        assert found.text and found.stop_reason
        assert all(row.proposal.place is None for row in found.trace), "a trace holds on to the cache"


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_on_positions_of_three_axes(scorer, pictures, prompts, name: str) -> None:
    own = tiny("qwen2_vl")
    guide = ValueModel(own, ValueSpec("tiny", "frozen", -1, "sentence"))
    small = [picture.resize(size) for picture, size in zip(pictures, [(56, 40), (28, 60), (80, 80)], strict=False)]

    def find_all(in_flight: int) -> dict[int, Found]:
        return dict(desk_of(own, scorer, guide, in_flight).run(jobs(name, small, prompts[:3])))

    assert rounded(find_all(3)) == rounded(find_all(1))


@pytest.mark.parametrize("in_flight", [1, 3, 16])
def test_images_are_asked_for_when_they_are_admitted_and_read_once(
    policy, scorer, pictures, prompts, in_flight: int
) -> None:
    asked: list[int] = []
    desk = desk_of(policy, scorer, in_flight=in_flight, refill=0.9)
    found: dict[int, Found] = {}
    for index, one in desk.run(iter(jobs("clip_prm", pictures, prompts, asked))):
        found[index] = one
        assert len(asked) <= len(found) + 2 * in_flight
    assert asked == list(range(16))
    assert rounded(found) == rounded(dict(desk_of(policy, scorer).run(jobs("clip_prm", pictures, prompts))))
    counters = desk.decoder.counters
    assert counters["vision_encodes"] == 16
    assert counters["prefill_tokens"] == int(policy.inputs(pictures, prompts)["attention_mask"].sum())
    assert counters["decode_tokens"] == sum(row.proposal.drawn for one in found.values() for row in one.trace)
    assert desk._running == {} and desk.scores._images == {}, "what is over is not forgotten"


def test_searches_that_ask_for_different_things_share_a_desk(policy, scorer, demo_value, pictures, prompts) -> None:
    mixed = [jobs(name, pictures, prompts)[i] for i, name in enumerate(STRATEGIES)]
    together = dict(desk_of(policy, scorer, demo_value, in_flight=16).run(mixed))
    assert len(together) == len(mixed)
    for i, name in list(enumerate(STRATEGIES))[::4]:
        alone = desk_of(policy, scorer, demo_value).run([jobs(name, pictures, prompts)[i]])
        assert rounded(dict(alone)) == rounded({i: together[i]})
