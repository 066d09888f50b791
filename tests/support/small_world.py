"""Everything a stage needs, made once a session by the stages before it: 60 drawn scenes and the shipped demo models.

Stages run bare (`stage.fn`): no cache, no Prefect. Only `truth` and evaluation open annotations, as the cache would for them.
"""

from __future__ import annotations

from functools import cache

from storage import lake
from storage.artifacts import PolicyCheckpoint, ScorerCheckpoint, Table
from storage.checkpoints import import_checkpoint
from storage.schema import Annotation, Caption, Reward, Rollout, Sample
from tasks.configs.data import DemoSource, SampleConfig
from tasks.configs.reward import LabelConfig, OtsuTau
from tasks.configs.rollout import RolloutConfig
from tasks.configs.search import SearchConfig
from tasks.configs.train import SftConfig
from tasks.configs.value import ValueConfig
from tasks.data.sample import Draw, OpenSource, SampleResult, annotate, open_source, sample
from tasks.models.handles import PolicyHandle, ValueHandle
from tasks.reward.score import score
from tasks.reward.shape_rewards import RewardsResult, shape_rewards
from tasks.rollout.rollout import RolloutResult, rollout
from tasks.value.train_value import ValueResult, train_value
from tests.support.paths import DEMO

POLICY = DEMO / "policy"
ROLLOUT = RolloutConfig(temperatures=(0.7,), max_new_tokens=80)
VALUE = ValueConfig(train="full", lr=1e-3, epochs=2, batch_size=16, min_spearman=-1, min_spread=0)
SEARCH = SearchConfig(candidates=3, max_sentences=3, max_sentence_tokens=24, max_new_tokens=80)
FINETUNE = SftConfig(train="full", lr=1e-4, batch_size=8)
IMAGES = 16


@cache
def policy() -> PolicyHandle:
    return PolicyHandle(import_checkpoint(PolicyCheckpoint, str(POLICY)))


@cache
def scorer() -> ScorerCheckpoint:
    return import_checkpoint(ScorerCheckpoint, str(DEMO / "scorer"))


@cache
def source(split: str = "train") -> OpenSource:
    return open_source(DemoSource(images=60, split=split))


@cache
def drawn(benchmark: bool = False) -> SampleResult:
    draw = Draw(images=8 if benchmark else IMAGES, seed=0, benchmark=benchmark)
    return sample.fn(SampleConfig(val_share=0.3), source("test" if benchmark else "train"), draw)


@cache
def truth() -> Table[Annotation]:
    return annotate.fn(source("test"), drawn(benchmark=True).images).annotations


def rolled(**options: object) -> RolloutResult:
    world = drawn()
    return rollout.fn(ROLLOUT, policy(), world.images, world.samples, seed=0, **options)


@cache
def rollouts() -> Table[Rollout]:
    return rolled().rollouts


@cache
def scored() -> Table[Reward]:
    world = drawn()
    return score.fn(scorer(), world.images, world.samples, rollouts()).scored


@cache
def shaped() -> RewardsResult:
    return shape_rewards.fn(LabelConfig(tau=OtsuTau()), scored())


def trained(config: ValueConfig = VALUE, rewards: Table[Reward] | None = None) -> ValueResult:
    world = drawn()
    return train_value.fn(config, policy(), world.images, world.samples, rewards or shaped().rewards, seed=0)


@cache
def fitted() -> ValueResult:
    return trained()


@cache
def value() -> ValueHandle:
    return ValueHandle(fitted().value, policy())


def samples(benchmark: bool = False) -> list[Sample]:
    return lake.read_rows(Sample, drawn(benchmark).samples)


def captions_of(texts: list[str]) -> Table[Caption]:
    """Captions of the benchmark's samples, in order, as a search would return them."""
    rows = [
        Caption(sample.sample_id, sample.image_id, "p", "greedy", text, 1, "end", 1, 1)
        for sample, text in zip(samples(benchmark=True), texts, strict=True)
    ]
    return lake.publish(Caption, rows)
