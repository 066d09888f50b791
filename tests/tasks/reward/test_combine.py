"""Several rewards as one: the sum by hand, the same sum in a search, and how alike the rewards are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from storage import lake
from storage.artifacts import ArtifactMissing, PolicyCheckpoint, ScorerCheckpoint, Table
from storage.checkpoints import import_checkpoint
from storage.schema import Agreement, Reward, SearchStep
from storage.upkeep import collect_garbage
from tasks.configs.reward import CosineReward, LabelConfig, LikelihoodReward, ObjectsReward, ScorerConfig, TokenReward
from tasks.configs.reward import Reward as RewardConfig
from tasks.core.metrics import spearman
from tasks.models.handles import Guide, PolicyHandle
from tasks.models.loading import load_images
from tasks.models.scorers import import_reward, import_scorer, load_scores, needed_by, reward_name
from tasks.reward.combine import CombineResult, combine
from tasks.reward.detect import detect
from tasks.reward.score import score
from tasks.reward.shape_rewards import shape_rewards
from tasks.search.search import search
from tasks.stage.quarantine import StageInputError
from tasks.stage.results import to_output
from tests.support.paths import DEMO
from tests.support.small_world import SEARCH, drawn, policy, rollouts, samples, scored, scorer

REWARDS = (
    CosineReward(checkpoint=str(DEMO / "scorer"), weight=2.0),
    TokenReward(weight=0.5),
    LikelihoodReward(weight=-1.0),
    ObjectsReward(weight=1.0),
)
CONFIG = ScorerConfig(checkpoint=str(DEMO / "scorer"), rewards=REWARDS)


@cache
def imported(reward: RewardConfig) -> ScorerCheckpoint:
    detections = detect(ObjectsReward(), scorer(), [drawn().images]).objects
    return import_reward(reward, scorer(), policy(), detections)


@cache
def scored_by(reward: RewardConfig) -> Table[Reward]:
    world = drawn()
    return score.fn(imported(reward), world.images, world.samples, rollouts()).scored


def combined(config: ScorerConfig = CONFIG) -> CombineResult:
    rewards = config.rewards
    return combine.fn(
        config, [*map(scored_by, rewards)], [*map(imported, rewards)], [*map(reward_name, rewards)],
    )  # fmt: skip


@cache
def whole() -> CombineResult:
    return combined()


def column(table: Table[Reward]) -> np.ndarray:
    return np.array([row.score for row in lake.read_rows(Reward, table)], dtype=np.float64)


def test_the_sum_is_the_one_computed_by_hand() -> None:
    total = np.zeros(len(column(scored())))
    for reward in REWARDS:
        scores = column(scored_by(reward))
        total += reward.weight * (scores - scores.mean()) / scores.std()
    assert column(whole().scored) == pytest.approx(total)
    assert whole().means["likelihood"] == pytest.approx(column(scored_by(REWARDS[2])).mean())
    assert whole().deviations["objects"] == pytest.approx(column(scored_by(REWARDS[3])).std())


def test_the_first_reward_is_the_scorer_s_own_cosine() -> None:
    assert scored_by(REWARDS[0]) == scored()


def test_the_sum_keeps_a_sentences_step_and_names_the_sum_as_its_scorer() -> None:
    for row, own in zip(lake.read_rows(Reward, whole().scored), lake.read_rows(Reward, scored()), strict=True):
        assert row == replace(own, score=row.score, scorer=whole().scorer.digest, truncated=row.truncated)


def test_raw_rewards_are_added_as_they_are() -> None:
    rewards = REWARDS[:2]
    config = ScorerConfig(checkpoint="x/y", rewards=rewards, scale="raw")
    total = 2.0 * column(scored_by(rewards[0])) + 0.5 * column(scored_by(rewards[1]))
    assert column(combined(config).scored) == pytest.approx(total)


def test_one_reward_standardised_orders_sentences_as_it_did() -> None:
    alone = combined(ScorerConfig(checkpoint="x/y", rewards=REWARDS[:1]))
    assert spearman(column(alone.scored), column(scored())) == pytest.approx(1.0)


def test_the_same_input_gives_the_same_output_and_another_weight_another_scorer() -> None:
    assert combined() == whole()
    heavier = (REWARDS[0].model_copy(update={"weight": 3.0}), *REWARDS[1:])
    assert combined(ScorerConfig(checkpoint="x/y", rewards=heavier)).scorer != whole().scorer


def test_the_sum_s_scorer_gives_a_search_what_the_rollouts_got_whatever_jobs_are_called() -> None:
    world, rows = drawn(), lake.read_rows(Reward, whole().scored)
    image_of = {sample.sample_id: sample.image_id for sample in samples()}
    pictures = load_images(world.images, list(image_of.values()))
    numbers = {sample_id: at for at, sample_id in enumerate(image_of)}
    counters: Counter[str] = Counter()
    scores = load_scores(whole().scorer, counters)
    # As in a search: by number, another order, some at a time.
    images = {numbers[sample_id]: pictures[image_id] for sample_id, image_id in image_of.items()}
    mixed = rows[::-1]
    got = [
        score for at in range(0, len(mixed), 7)
        for score in scores.score(images, [(numbers[row.sample_id], row.sentence) for row in mixed[at : at + 7]])
    ]  # fmt: skip
    assert got == [row.score for row in mixed]
    assert counters["images_without_detections"] == 0
    assert {
        "texts_embedded",
        "texts_scored_likelihood",
        "texts_scored_objects",
        "texts_scored_token_clip",
    } <= counters.keys()


def test_a_search_is_guided_by_the_sum() -> None:
    world = drawn()
    output = search.fn(
        SEARCH.model_copy(update={"strategy": "clip_prm", "end": "policy", "max_sentences": 2}), policy(),
        world.images, world.samples, Guide(whole().scorer), seed=0,
    )  # fmt: skip
    scores = load_scores(whole().scorer, Counter())
    image_of = {sample.sample_id: sample.image_id for sample in samples()}
    rows = [row for row in lake.read_rows(SearchStep, output.search_trace) if row.score is not None]
    pictures = load_images(world.images, list(image_of.values()))
    again = scores.score(pictures, [(image_of[row.sample_id], row.text) for row in rows])
    assert len(rows) > 20 and [row.score for row in rows] == again
    steps: dict[tuple[str, int], list[SearchStep]] = {}
    for row in rows:
        steps.setdefault((row.sample_id, row.step), []).append(row)
    assert all(row.score == max(rival.score for rival in step) for step in steps.values() for row in step if row.chosen)


def test_agreement_is_that_of_every_two_rewards_and_of_each_with_the_sum() -> None:
    rows = {(row.reward_a, row.reward_b, row.scope): row for row in lake.read_rows(Agreement, whole().reward_agreement)}
    assert len(rows) == 2 * (4 * 3 // 2 + 4)
    cosine, words = "cosine demo/scorer", "token_clip"
    pooled = rows[cosine, words, "pooled"]
    a, b = column(scored()), column(scored_by(REWARDS[1]))
    assert (pooled.spearman, pooled.n) == (pytest.approx(spearman(a, b)), len(a))
    groups: dict[str, list[int]] = {}
    for at, row in enumerate(lake.read_rows(Reward, scored())):
        groups.setdefault(row.sample_id, []).append(at)
    within = [rank for group in groups.values() if not np.isnan(rank := spearman(a[group], b[group]))]
    row = rows[cosine, words, "within_image"]
    assert (row.spearman, row.n) == (pytest.approx(np.mean(within)), len(within))
    assert rows[cosine, "combined", "pooled"].spearman == pytest.approx(spearman(a, column(whole().scored)))


def test_what_the_sum_refers_to_is_stored_with_it() -> None:
    needed = {ref for name, ref in to_output(whole()).refs.items() if name.startswith("needs.")}
    assert needed == set(needed_by(whole().scorer)) == {*map(imported, REWARDS), scorer(), policy().checkpoint}


@pytest.mark.usefixtures("home")
def test_garbage_collection_leaves_what_a_kept_sum_refers_to() -> None:
    words = TokenReward(checkpoint="ViT-B-32/openai")
    config = ScorerConfig(checkpoint="x/y", rewards=(words, REWARDS[2]))
    row = Reward("r", "s", 0, "A dog.", 0, 6, True, 0.0, None, "x", False, None)
    table = lake.publish(Reward, [row, replace(row, step=1, score=1.0)])
    own = import_checkpoint(PolicyCheckpoint, str(DEMO / "policy"))
    refs = [import_reward(reward, import_scorer("ViT-L-14/openai"), PolicyHandle(own)) for reward in config.rewards]
    scorer = combine(config, [table, table], refs, ["a", "b"]).scorer
    unused, nested = import_scorer("ViT-L-14/openai"), import_scorer("ViT-B-32/openai")
    assert collect_garbage().objects > 0
    needed = [scorer, *needed_by(scorer)]
    assert {*refs, own, nested} < set(needed) and unused not in needed
    for ref in needed:
        ref.verify(full=True)
    with pytest.raises(ArtifactMissing):
        unused.verify()


def test_rewards_are_shaped_from_the_sum() -> None:
    output = shape_rewards.fn(LabelConfig(), whole().scored)
    rows = lake.read_rows(Reward, output.rewards)
    assert output.margin < 0  # the margin of a standardised sum
    low = [row.shaped for row in rows if row.score < output.margin]
    assert low and max(low) < min(row.shaped for row in rows if row.score >= output.margin)


def with_scores(values: list[float | None]) -> Table[Reward]:
    rows = lake.read_rows(Reward, scored())[: len(values)]
    return lake.publish(
        Reward,
        [replace(row, score=v, reason=None if v is not None else "x") for row, v in zip(rows, values, strict=True)],
    )


def two(
    first: list[float | None], second: list[float | None], scale: str = "standard", names: list[str] | None = None
) -> CombineResult:
    config = ScorerConfig(checkpoint="x/y", rewards=(REWARDS[0], REWARDS[0]), scale=scale)
    tables = [with_scores(first), with_scores(second)]
    return combine.fn(config, tables, [scorer(), scorer()], names or ["a", "b"])


def test_a_sentence_without_one_of_the_scores_has_no_sum_and_a_reason() -> None:
    output = two([1.0, None, 3.0, None], [1.0, 2.0, None, None])
    rows = lake.read_rows(Reward, output.scored)
    assert [row.score for row in rows] == [pytest.approx(-2.0 - 2.0), None, None, None]
    assert [row.reason for row in rows] == [None, "a gave none", "b gave none", "a, b gave none"]
    assert output.counters == {"sentences": 4, "unscored": 3}
    rows = lake.read_rows(Agreement, output.reward_agreement)
    assert all(np.isnan(row.spearman) for row in rows)


@pytest.mark.parametrize("alike", [[0.3, 0.3, 0.3], [0.1 + 0.2, 0.3, 0.3], [0.3, None, None]])
def test_a_constant_reward_is_refused(alike: list[float | None]) -> None:
    with pytest.raises(StageInputError, match=r"reward b gave every sentence 0\.3: .* or set scorer.scale: raw"):
        two([1.0, 2.0, 3.0], alike)
    rows = lake.read_rows(Reward, two([1.0, 2.0, 3.0], alike, "raw").scored)
    assert rows[0].score == pytest.approx(2.6)


def test_a_reward_that_scored_nothing_is_refused() -> None:
    with pytest.raises(StageInputError, match="reward b scored none of 2 sentences"):
        two([1.0, 2.0], [None, None])


def test_tables_of_other_sentences_are_refused() -> None:
    config = ScorerConfig(checkpoint="x/y", rewards=REWARDS[:2])
    with pytest.raises(StageInputError, match="for 3 and 2 sentences, 1 of which only one of them scored"):
        combine.fn(
            config,
            [with_scores([1.0, 2.0, 3.0]), with_scores([1.0, 2.0])],
            [scorer(), scorer()],
            ["a", "b"],
        )
    with pytest.raises(StageInputError, match="2 rewards, 1 tables, 2 scorers and 2 names"):
        combine.fn(config, [scored()], [scorer(), scorer()], ["a", "b"])


def test_rewards_of_one_name_get_numbers() -> None:
    rows = lake.read_rows(Agreement, two([1.0, 2.0], [2.0, 1.0], names=["a", "a"]).reward_agreement)
    assert {row.reward_a for row in rows} | {row.reward_b for row in rows} == {"a", "a (2)", "combined"}
    rows = lake.read_rows(Agreement, two([1.0, 2.0], [2.0, 1.0], names=["combined", "a"]).reward_agreement)
    assert {row.reward_b for row in rows} == {"a", "combined"}
