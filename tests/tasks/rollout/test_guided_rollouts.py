"""Captions become answers that can be scored, rewarded and learned from beside the policy's own."""

from __future__ import annotations

from storage import lake
from storage.artifacts import Table
from storage.schema import Caption, Reward, Rollout, Value
from tasks.configs.reward import FixedTau, LabelConfig
from tasks.reward.score import score
from tasks.reward.shape_rewards import shape_rewards
from tasks.rollout.guided import guided_rollouts
from tasks.value.train_value import ValueResult, train_value
from tests.support.small_world import VALUE, drawn, policy, rollouts, samples, scorer, shaped


def guided(texts: list[str], number: int = 1) -> Table[Rollout]:
    """Captions of the training samples as answers."""
    rows = [
        Caption(sample.sample_id, sample.image_id, policy().checkpoint.digest, "visvm", text, 2, "reward", 6, 40)
        for sample, text in zip(samples(), texts, strict=True)
    ]
    return guided_rollouts.fn(lake.publish(Caption, rows), number=number, seed=5).rollouts


def test_every_caption_is_an_answer_of_its_round() -> None:
    texts = [f"There is a dog. There are {n} cats." for n in range(len(samples()))]
    rows = lake.read_rows(Rollout, guided(texts, number=3))
    assert {(row.sample_id, row.text) for row in rows} == {
        (sample.sample_id, text) for sample, text in zip(samples(), texts, strict=True)
    }
    for row in rows:
        assert (row.rollout_id, row.decode) == (f"{row.sample_id}-guided-3", "guided-3")
        assert (row.policy, row.temperature, row.seed, row.finish_reason) == (
            policy().checkpoint.digest,
            0.0,
            5,
            "stop",
        )


def test_guided_answers_of_two_rounds_and_the_policys_own_stand_side_by_side() -> None:
    texts = ["There is a dog."] * len(samples())
    tables = (guided(texts), guided(texts, 2), rollouts())
    ids = [row.rollout_id for table in tables for row in lake.read_rows(Rollout, table)]
    assert len(set(ids)) == len(ids)


def test_a_value_model_learns_from_both_and_is_judged_on_both() -> None:
    captions = guided(["There is a dog. There is a cat. There is a cup."] * len(samples()))
    world = drawn()
    scored = score.fn(scorer(), world.images, world.samples, captions).scored
    margin = shaped().margin
    rewarded = shape_rewards.fn(LabelConfig(tau=FixedTau(value=margin)), scored)
    assert rewarded.margin == margin

    def train(reads: str, rewards: list[Table[Reward]], answers: list[Table[Rollout]]) -> ValueResult:
        config = VALUE.model_copy(update={"reads": reads, "train": "frozen", "epochs": 1})
        return train_value.fn(config, policy(), world.images, world.samples, rewards, rollouts=answers, seed=0)

    own, both = [shaped().rewards], [shaped().rewards, rewarded.rewards]
    for reads in ("image_and_text", "policy_states"):
        alone, together = train(reads, own, [rollouts()]), train(reads, both, [rollouts(), captions])
        held_out = [row for row in lake.read_rows(Value, together.values) if row.rollout_id.endswith("-guided-1")]
        assert len(held_out) == 3 * sum(sample.split == "val" for sample in samples())
        assert together.health["held_out"] == alone.health["held_out"] + len(held_out)
        more = rewarded.rewards.rows - len(held_out)
        assert together.counters["transitions"] == alone.counters["transitions"] + more
    assert together.counters["states_tokens"] > alone.counters["states_tokens"]


def test_a_caption_without_a_word_is_in_the_scorers_quarantine() -> None:
    texts = ["", *["There is a dog."] * (len(samples()) - 1)]
    world = drawn()
    output = score.fn(scorer(), world.images, world.samples, guided(texts))
    assert output.quarantine.rows == 1
    assert len({row.rollout_id for row in lake.read_rows(Reward, output.scored)}) == len(samples()) - 1
