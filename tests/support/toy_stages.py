"""A loop in miniature: draw samples, grow them in shards, count them. Each computation leaves a line in `computed`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from storage import lake
from storage.artifacts import Table, home
from storage.schema import Annotation, Sample
from tasks.stage.calls import resume_folder
from tasks.stage.results import StageResult
from tasks.stage.runtime import RuntimeConfig, use_runtime
from tasks.stage.shards import WHOLE, Shard
from tasks.stage.stage import stage


class Config(BaseModel):
    model_config = ConfigDict(frozen=True)

    n: int = 7
    word: str = "a"
    tags: frozenset[str] = frozenset({"x", "y", "z"})
    batch_size: int = Field(4, json_schema_extra={"semantic": False})
    seconds: float = Field(0, json_schema_extra={"semantic": False})


def computed() -> list[str]:
    log = home() / "computed"
    return log.read_text().split() if log.exists() else []


def note(what: str) -> None:
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "computed").open("a") as log:
        log.write(f"{what}\n")


@dataclass(frozen=True)
class Samples(StageResult):
    samples: Table[Sample]
    word: str = ""


@dataclass(frozen=True)
class Number(StageResult):
    n: int


@dataclass(frozen=True)
class Truth(StageResult):
    annotations: Table[Annotation]


@stage()
def draw(config: Config) -> Samples:
    """Draw n samples."""
    note("draw")
    rows = [Sample(f"s{i:03d}", f"i{i}", "p", "train") for i in range(config.n)]
    return Samples(lake.publish(Sample, rows))


@stage(sharded_by="samples")
def grow(config: Config, samples: Table[Sample], *, shard: Shard = WHOLE) -> Samples:
    """Give every sample the config's word."""
    note(f"grow{shard.index}of{shard.of}")
    time.sleep(config.seconds)
    mine = shard.slice(lake.read_rows(Sample, samples))
    rows = [Sample(row.sample_id, row.image_id, config.word, row.split) for row in mine]
    return Samples(lake.publish(Sample, rows), config.word, counters={"rows": len(rows)})


@stage()
def count(samples: Table[Sample]) -> Number:
    """Count them."""
    note("count")
    return Number(samples.rows or 0)


@stage()
def fail(samples: Table[Sample]) -> Number:
    """Always raises."""
    raise LookupError("the original words")


@stage(sharded_by="samples")
def fail_in_shard_1(samples: Table[Sample], *, shard: Shard = WHOLE) -> Samples:
    """Raises in the second shard only."""
    note(f"shard{shard.index}")
    if shard.index == 1:
        raise LookupError("the second shard")
    return Samples(samples)


@stage(sharded_by="samples")
def disagree(samples: Table[Sample], *, shard: Shard = WHOLE) -> Number:
    """A fact that depends on the shard."""
    return Number(shard.index)


@stage()
def annotate() -> Truth:
    """Publish annotations."""
    return Truth(lake.publish(Annotation, [Annotation("i0", ["cat"], [], [])]))


@stage()
def peek(hidden: dict[str, str]) -> Number:
    """Try to read annotations through the back door."""
    lake.read(Table(kind="annotations", digest=hidden["digest"], rows=1))
    return Number(0)


@stage(reads_annotations=True)
def judge(annotations: Table[Annotation]) -> Number:
    """Read annotations, as evaluation does."""
    return Number(lake.read(annotations).num_rows)


@stage()
def resumable(config: Config) -> Number:
    """Count to n with a checkpoint at each step; the first attempt dies half way."""
    steps = resume_folder() / "steps"
    done = int(steps.read_text()) if steps.exists() else 0
    for step in range(done, config.n):
        note(f"step{step}")
        steps.write_text(str(step + 1))
        if step == 2 and done == 0:
            raise InterruptedError("half way")
    return Number(config.n)


def loop(config: Config, shards: int = 3) -> Number:
    drawn = draw(Config(n=config.n))
    with use_runtime(RuntimeConfig(shards=shards)):
        grown = grow.over_shards(config, drawn.samples)
    return count(grown.samples)


if __name__ == "__main__":
    loop(Config(seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 0))
