"""Gather: the outputs of shards become one, so that nothing later depends on how many there were."""

from __future__ import annotations

from storage import lake
from storage.artifacts import ArtifactRef, StageOutput, Table, canonical_json
from tasks.stage.quarantine import StageInputError
from tasks.stage.stage import stage


@stage(reads_annotations=True)  # it merges tables and shows them to nobody
def gather(shards: list[StageOutput]) -> StageOutput:
    """Merge the outputs of shards: one table for each name, counters summed, facts as they agree.

    Raises:
        StageInputError: shards differ in their facts, their output names, or in a checkpoint.
    """
    first = shards[0]
    refs, counters = dict[str, ArtifactRef](), dict[str, float]()
    for shard in shards:
        # As text: a fact that is not a number equals itself.
        if canonical_json(shard.facts) != canonical_json(first.facts) or shard.refs.keys() != first.refs.keys():
            raise StageInputError(f"shards disagree in facts or outputs: {first} and {shard}")
        for name, count in shard.counters.items():
            counters[name] = counters.get(name, 0) + count
    for name, ref in first.refs.items():
        pieces = [shard.refs[name] for shard in shards]
        if isinstance(ref, Table):
            refs[name] = lake.merge([piece for piece in pieces if isinstance(piece, Table)])
        elif len({piece.digest for piece in pieces}) == 1:
            refs[name] = ref
        else:
            raise StageInputError(f"shards gave different checkpoints as {name}; only tables can be merged")
    return StageOutput(refs=refs, facts=first.facts, counters=counters)
