"""What all rounds share: models, sources and the benchmark; the base measured and the health check. Order only."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from flows.profiles.loading import Profile, locate
from storage.artifacts import ScorerCheckpoint, Table
from storage.schema import Annotation
from tasks.data.sample import Draw, OpenSource, SampleResult, annotate, open_source, sample
from tasks.models.checks import import_policy
from tasks.models.handles import PolicyHandle
from tasks.models.scorers import import_scorer
from tasks.train.training import TrainResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopContext:
    """What all rounds share."""

    profile: Profile
    base: PolicyHandle
    source: OpenSource  # of the training images
    scorer: ScorerCheckpoint  # alone, or beside the profile's other rewards
    benchmark: SampleResult

    def handle(self, trained: TrainResult) -> PolicyHandle:
        """A policy that this loop trained: loaded as the base is, but in the number format that it was saved in."""
        return replace(self.base, checkpoint=trained.policy, dtype=trained.dtype)


@dataclass(frozen=True)
class CaptionContext(LoopContext):
    """Of a loop that improves captions: what is truly in the benchmark's images."""

    annotations: Table[Annotation]


def base_policy(profile: Profile) -> PolicyHandle:
    """The profile's own policy."""
    return import_policy(locate(profile.policy.checkpoint), profile.policy)


def benchmark_draw(profile: Profile) -> Draw:
    """The benchmark's images: the same ones in every round."""
    return Draw(images=profile.evaluate.images, seed=profile.seed, benchmark=True)


def round_draw(profile: Profile, number: int) -> Draw:
    """The training images of a round (1: the first)."""
    return Draw(images=profile.sample.images, seed=profile.seed, round_index=number - 1)


def prepare_loop(profile: Profile) -> CaptionContext:
    """The sources, the scorer, the base policy and the annotated benchmark."""
    source = open_source(profile.data.benchmark)
    base = base_policy(profile)
    benchmark = sample.with_label("benchmark")(profile.sample, source, benchmark_draw(profile), base)
    truth = annotate.with_label("benchmark")(source, benchmark.images)
    return CaptionContext(
        profile=profile,
        base=base,
        source=open_source(profile.data.train),
        scorer=import_scorer(locate(profile.scorer.checkpoint), profile.scorer.dtype),
        benchmark=benchmark,
        annotations=truth.annotations,
    )
