"""A loop in miniature: draw samples, grow them in shards, count them. Each computation leaves a line in `computed`."""

from __future__ import annotations

import sys
import time

from pydantic import BaseModel, ConfigDict, Field

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput, home
from storage.schema import Annotation, Sample
from tasks.stage.stage import WHOLE, Shard, resume_folder, stage


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


@stage()
def draw(config: Config, *, label: str = "") -> StageOutput:
    """Draw n samples."""
    note("draw")
    rows = [Sample(f"s{i:03d}", f"i{i}", "p", "train") for i in range(config.n)]
    return StageOutput(refs={"samples": lake.publish(Sample, rows)}, facts={"n": config.n})


@stage(sharded_by="samples")
def grow(
    config: Config, samples: ArtifactRef, *, shard: Shard = WHOLE, runtime: object = None, label: str = ""
) -> StageOutput:
    """Give every sample the config's word."""
    note(f"grow{shard.index}of{shard.of}")
    time.sleep(config.seconds)
    mine = shard.slice(lake.read_rows(Sample, samples))
    rows = [Sample(row.sample_id, row.image_id, config.word, row.split) for row in mine]
    return StageOutput(
        refs={"samples": lake.publish(Sample, rows)}, facts={"word": config.word}, counters={"rows": len(rows)}
    )


@stage()
def count(samples: ArtifactRef, *, label: str = "") -> StageOutput:
    """Count them."""
    note("count")
    return StageOutput(facts={"n": samples.rows})


@stage()
def fail(samples: ArtifactRef, *, label: str = "") -> StageOutput:
    """Always raises."""
    raise LookupError("the original words")


@stage(sharded_by="samples")
def fail_in_shard_1(samples: ArtifactRef, *, shard: Shard = WHOLE) -> StageOutput:
    """Raises in the second shard only."""
    note(f"shard{shard.index}")
    if shard.index == 1:
        raise LookupError("the second shard")
    return StageOutput(refs={"samples": samples})


@stage(sharded_by="samples")
def disagree(samples: ArtifactRef, *, shard: Shard = WHOLE) -> StageOutput:
    """A fact that depends on the shard."""
    return StageOutput(facts={"index": shard.index})


@stage()
def annotate() -> StageOutput:
    """Publish annotations."""
    return StageOutput(refs={"annotations": lake.publish(Annotation, [Annotation("i0", ["cat"], [], [])])})


@stage()
def peek(hidden: dict[str, str]) -> StageOutput:
    """Try to read annotations through the back door."""
    lake.read(ArtifactRef(kind="annotations", digest=hidden["digest"], rows=1))
    return StageOutput()


@stage(reads_annotations=True)
def judge(annotations: ArtifactRef) -> StageOutput:
    """Read annotations, as evaluation does."""
    return StageOutput(facts={"n": lake.read(annotations).num_rows})


@stage()
def resumable(config: Config) -> StageOutput:
    """Count to n with a checkpoint at each step; the first attempt dies half way."""
    steps = resume_folder() / "steps"
    done = int(steps.read_text()) if steps.exists() else 0
    for step in range(done, config.n):
        note(f"step{step}")
        steps.write_text(str(step + 1))
        if step == 2 and done == 0:
            raise InterruptedError("half way")
    return StageOutput(facts={"steps": config.n})


def loop(config: Config, shards: int = 3) -> StageOutput:
    drawn = draw(Config(n=config.n))
    grown = grow.over_shards(shards, config, drawn["samples"], runtime=object())
    return count(grown["samples"])


if __name__ == "__main__":
    loop(Config(seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 0))
