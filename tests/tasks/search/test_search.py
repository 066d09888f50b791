"""Search: one caption a sample by every strategy, with its whole trace, however it is batched and sharded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from storage import lake
from storage.artifacts import PolicyCheckpoint, ScorerCheckpoint
from storage.checkpoints import import_checkpoint
from storage.schema import Caption, Image, Rollout, Sample, SearchStep, Value
from tasks.configs.search import SearchConfig
from tasks.core.reward.shaping import shape_scores
from tasks.core.text import split_sentences
from tasks.models.handles import Guide, PolicyHandle
from tasks.search.search import CaptionsResult, search
from tasks.stage.gather import gather
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import from_output, to_output
from tasks.stage.runtime import current_runtime, use_runtime
from tasks.stage.shards import WHOLE, Shard
from tests.support.paths import DEMO
from tests.support.small_world import SEARCH, drawn, fitted, policy, rollouts, samples, scorer, shaped, value

STRATEGIES = ["visvm", "clip_prm", "best_of_n", "greedy"]


def full_guide() -> Guide:
    return Guide(scorer(), shaped().margin, value(), end_value=shaped().end_value)


def searched(
    strategy: str = "visvm", config: SearchConfig = SEARCH, guide: Guide | None = None, shard: Shard = WHOLE
) -> CaptionsResult:
    config, world = config.model_copy(update={"strategy": strategy}), drawn()
    return search.fn(config, policy(), world.images, world.samples, guide or full_guide(), seed=0, shard=shard)


def rows_of(output: CaptionsResult) -> tuple[list[Caption], dict[str, list[SearchStep]]]:
    trace: dict[str, list[SearchStep]] = {}
    for row in lake.read_rows(SearchStep, output.search_trace):
        trace.setdefault(row.sample_id, []).append(row)
    return lake.read_rows(Caption, output.captions), trace


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_sample_has_a_caption_and_its_trace(strategy: str) -> None:
    captions, traces = rows_of(searched(strategy))
    assert {row.sample_id for row in captions} == {sample.sample_id for sample in samples()} == traces.keys()
    for caption in captions:
        trace = traces[caption.sample_id]
        chosen = [row for row in trace if row.chosen]
        assert caption.text == " ".join(row.text for row in chosen)
        assert (caption.steps, caption.candidates) == (len(chosen), len(trace))
        assert caption.stop_reason in ("end", "end_value", "max_sentences", "length", "repeat")
        assert [row.stop for row in trace if row.stop] == [caption.stop_reason]
        assert trace[-1].stop == caption.stop_reason
        assert {row.step for row in trace} == set(range(max(row.step for row in trace) + 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batches_and_shards_change_no_digest(strategy: str) -> None:
    together = searched(strategy)
    with use_runtime(current_runtime().model_copy(update={"batch_size": 1})):
        alone = searched(strategy)
    shards = gather.fn([to_output(searched(strategy, shard=Shard(index=i, of=4))) for i in range(4)])
    # Values and scores may differ in the last bits between batches; texts may not.
    for other in (alone, from_output(CaptionsResult, shards)):
        assert other.captions == together.captions
        assert _candidates(other) == _candidates(together)


def _candidates(output: CaptionsResult) -> list[tuple]:
    rows = lake.read_rows(SearchStep, output.search_trace)
    return [(row.sample_id, row.step, row.candidate, row.text, row.chosen, row.ended, row.stop) for row in rows]


def test_greedy_captions_are_the_greedy_rollouts() -> None:
    config = SEARCH.model_copy(update={"max_new_tokens": 80})
    captions = {row.sample_id: row.text for row in rows_of(searched("greedy", config=config))[0]}
    rolled = {row.sample_id: row.text for row in lake.read_rows(Rollout, rollouts()) if row.decode == "greedy"}
    assert captions == rolled


def test_the_trace_shows_what_guided_the_choice() -> None:
    margin = shaped().margin
    for strategy, guide in (("visvm", "value"), ("clip_prm", "score")):
        _, traces = rows_of(searched(strategy))
        for trace in traces.values():
            for step in {row.step for row in trace}:
                rows = [row for row in trace if row.step == step and getattr(row, guide) is not None]
                for row in rows:
                    assert (row.score is None) == (strategy == "visvm") and (row.value is None) == (
                        strategy == "clip_prm"
                    )
                    if row.score is not None:
                        shaped_score = shape_scores(np.array([row.score]), shaping="margin", margin=margin, alpha=1)
                        assert row.shaped == pytest.approx(shaped_score[0])
                    if row.chosen:
                        assert getattr(row, guide) == max(getattr(rival, guide) for rival in rows)


def test_filtered_nothing_below_the_margin_is_chosen_after_the_first_sentence() -> None:
    captions, traces = rows_of(searched("clip_prm", SEARCH.model_copy(update={"end": "policy", "filter": "margin"})))
    margin = shaped().margin
    for caption in captions:
        assert all(row.score >= margin for row in traces[caption.sample_id] if row.chosen and row.step > 0)
    assert any(row.stop_reason == "reward" for row in captions)


def random_guide() -> Guide:
    return replace(full_guide(), value=None, held_out=fitted().values)


@pytest.mark.parametrize(("strategy", "by"), [("visvm", None), ("best_of_n", "value"), ("vimar", None)])
def test_random_numbers_stand_for_v_however_it_is_batched_and_sharded(strategy: str, by: str | None) -> None:
    config = SEARCH.model_copy(update={"guide": "random", "by": by})
    together = searched(strategy, config, random_guide())
    with use_runtime(current_runtime().model_copy(update={"batch_size": 1})):
        alone = searched(strategy, config, random_guide())
    shards = [to_output(searched(strategy, config, random_guide(), Shard(index=i, of=3))) for i in range(3)]
    for other in (alone, from_output(CaptionsResult, gather.fn(shards))):
        assert other.captions == together.captions
        assert _candidates(other) == _candidates(together)
    known = {row.value for row in lake.read_rows(Value, fitted().values)}
    given = {row.value for row in lake.read_rows(SearchStep, together.search_trace)} - {None}
    assert len(given) > 10
    if strategy == "visvm":  # the others' values of whole answers are means of their sentences'
        assert given <= known
    by_value = searched(strategy, SEARCH.model_copy(update={"by": by}), replace(full_guide(), held_out=fitted().values))
    assert by_value.captions != together.captions


def test_random_numbers_need_the_values_that_they_are_drawn_from_and_a_strategy_that_asks() -> None:
    config = SEARCH.model_copy(update={"guide": "random"})
    with pytest.raises(StageInputError, match="draws from a value model's held-out values: train one"):
        searched("visvm", config, full_guide())
    with pytest.raises(StageInputError, match=r"stands for V, and search\.strategy clip_prm has none"):
        searched("clip_prm", config, random_guide())


def test_a_filtered_search_is_not_called_by_its_plain_name() -> None:
    filtered = SEARCH.model_copy(update={"end": "policy", "filter": "margin", "max_sentences": 1})
    for strategy, name in (("clip_prm", "clip_prm:filter=margin"), ("greedy", "greedy")):
        captions, _ = rows_of(searched(strategy, filtered))
        assert {row.strategy for row in captions} == {name}


def test_limits_hold() -> None:
    captions, traces = rows_of(searched(config=SEARCH.model_copy(update={"max_sentences": 1, "candidates": 5})))
    assert all(len(split_sentences(row.text)) <= 1 and row.steps <= 1 for row in captions)
    assert {len(trace) for trace in traces.values()} == {5}


@pytest.mark.parametrize(
    ("strategy", "missing", "needs"),
    [
        ("clip_prm", "scorer", "it needs a scorer"),
        ("best_of_n", "scorer", "it needs a scorer"),
        ("visvm", "value", "train one, or use clip_prm"),
        ("visvm", "end_value", "run shape_rewards first, or set search.end_value"),
        ("clip_prm", "margin", "or use end: vote"),
    ],
)
def test_a_strategy_without_its_guide_is_an_error_that_names_it(strategy: str, missing: str, needs: str) -> None:
    with pytest.raises(StageInputError, match=needs):
        searched(strategy, guide=replace(full_guide(), **{missing: None}))


def test_a_new_store_gets_the_same_captions(home) -> None:
    """Nothing but the inputs decides: no global state, no cache, no order of earlier calls."""
    home.mkdir()
    config = SEARCH.model_copy(update={"strategy": "best_of_n"})
    policy = PolicyHandle(import_checkpoint(PolicyCheckpoint, str(DEMO / "policy")))
    guide = Guide(import_checkpoint(ScorerCheckpoint, str(DEMO / "scorer")))
    images, samples = lake.publish(Image, _IMAGES), lake.publish(Sample, _SAMPLES)
    with use_runtime(current_runtime().model_copy(update={"shards": 3})):
        output = search.over_shards(config, policy, images, samples, guide, seed=0)
    assert output.captions.digest == _CAPTIONS


@pytest.fixture(autouse=True, scope="module")
def _before_the_store_changes(_store_of_the_session) -> None:
    global _IMAGES, _SAMPLES, _CAPTIONS
    _IMAGES, _SAMPLES = lake.read_rows(Image, drawn().images), samples()
    _CAPTIONS = searched("best_of_n").captions.digest
