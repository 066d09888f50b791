"""Everything a stage needs, made once a session by the stages before it: 60 drawn scenes and the shipped demo models.

Stages run bare (`stage.fn`): no cache, no Prefect. Only `truth` and evaluation open annotations, as the cache would for them.
"""

from __future__ import annotations

from functools import cache

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput
from storage.checkpoints import import_checkpoint
from storage.schema import Caption, Sample
from tasks.configs.data import DemoSource, SampleConfig
from tasks.configs.policy import PolicyConfig
from tasks.configs.reward import LabelConfig, OtsuTau
from tasks.configs.rollout import RolloutConfig
from tasks.configs.search import SearchConfig
from tasks.configs.train import SftConfig
from tasks.configs.value import ValueConfig
from tasks.data.sample import Draw, OpenSource, annotate, open_source, sample
from tasks.reward.label import label
from tasks.reward.score import score
from tasks.rollout.rollout import rollout
from tasks.stage.runtime import RuntimeConfig
from tasks.value.train_value import train_value
from tests.support.paths import DEMO

RUNTIME = RuntimeConfig(device="cpu", threads=1, batch_size=16)
MODEL = PolicyConfig(checkpoint=str(DEMO / "policy"))
ROLLOUT = RolloutConfig(temperatures=(0.7,), max_new_tokens=80)
VALUE = ValueConfig(train="full", lr=1e-3, epochs=2, batch_size=16, min_spearman=-1, min_spread=0)
SEARCH = SearchConfig(candidates=3, max_sentences=3, max_sentence_tokens=24, max_new_tokens=80)
FINETUNE = SftConfig(train="full", lr=1e-4, batch_size=8)
IMAGES = 16


@cache
def policy() -> ArtifactRef:
    return import_checkpoint("policy", str(DEMO / "policy"))


@cache
def scorer() -> ArtifactRef:
    return import_checkpoint("scorer", str(DEMO / "scorer"))


@cache
def source(split: str = "train") -> OpenSource:
    return open_source(DemoSource(images=60, split=split))


@cache
def drawn(benchmark: bool = False) -> StageOutput:
    draw = Draw(images=8 if benchmark else IMAGES, seed=0, benchmark=benchmark)
    return sample.fn(SampleConfig(val_share=0.3), source("test" if benchmark else "train"), draw, runtime=RUNTIME)


@cache
def truth() -> ArtifactRef:
    return annotate.fn(source("test"), drawn(benchmark=True)["images"], runtime=RUNTIME)["annotations"]


def rolled(runtime: RuntimeConfig = RUNTIME, **options: object) -> StageOutput:
    world = drawn()
    return rollout.fn(ROLLOUT, MODEL, policy(), world["images"], world["samples"], seed=0, runtime=runtime, **options)


@cache
def rollouts() -> ArtifactRef:
    return rolled()["rollouts"]


@cache
def scored() -> ArtifactRef:
    world = drawn()
    return score.fn(scorer(), world["images"], world["samples"], rollouts(), runtime=RUNTIME)["scored"]


@cache
def labelled() -> StageOutput:
    return label.fn(LabelConfig(tau=OtsuTau()), scored(), runtime=RUNTIME)


def trained(config: ValueConfig = VALUE, rewards: ArtifactRef | None = None) -> StageOutput:
    world = drawn()
    return train_value.fn(
        config, MODEL, policy(), world["images"], world["samples"], rewards or labelled()["rewards"], seed=0,
        runtime=RUNTIME,
    )  # fmt: skip


@cache
def value() -> ArtifactRef:
    return trained()["value"]


def samples(benchmark: bool = False) -> list[Sample]:
    return lake.read_rows(Sample, drawn(benchmark)["samples"])


def captions_of(texts: list[str]) -> ArtifactRef:
    """Captions of the benchmark's samples, in order, as if a search had found them."""
    rows = [
        Caption(one.sample_id, one.image_id, "p", "greedy", text, 1, "end", 1, 1)
        for one, text in zip(samples(benchmark=True), texts, strict=True)
    ]
    return lake.publish(Caption, rows)
