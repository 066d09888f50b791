"""Describe any images by any strategy: what `visloop caption` runs. Publishes nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from storage import checkpoints, images, records, runs
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Image, Run, Sample
from tasks.configs import PolicyConfig, RuntimeConfig, SearchConfig
from tasks.quarantine import StageInputError
from tasks.searcher import Guides, Searcher

log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """What a run left that captions can use."""

    run_id: str
    champion: ArtifactRef | None  # None: the base model was never beaten
    value: ArtifactRef | None
    backbone: ArtifactRef | None
    tau: float | None


def caption_images(
    paths: Sequence[Path],
    *,
    model: PolicyConfig,
    policy: ArtifactRef,
    search: SearchConfig,
    scorer: ArtifactRef | None,
    trained: Trained | None,
    prompt: str,
    seed: int,
    runtime: RuntimeConfig,
) -> list[dict[str, Any]]:
    """One dict a path: path, text, steps, stop_reason; for a bad image: path, error.

    Args:
        paths: image files.
        model: how to load the policy.
        policy: the checkpoint that answers.
        search: strategy and its settings.
        scorer: where the strategy scores sentences.
        trained: a run's value model and margin, where the strategy is guided by them.
        prompt: what to ask.
        seed: of every draw.
        runtime: how fast.

    Raises:
        StageInputError: the strategy needs something that is not there.
    """
    read = [
        images.read_image_file(path, image_id=str(path), source="command line", split="test", min_side=1)
        for path in paths
    ]
    good = [row for row in read if isinstance(row, Image)]
    guides = Guides(scorer)
    if search.strategy in ("visvm", "clip_prm"):
        if trained is None:
            raise StageInputError(
                f"strategy {search.strategy} is guided by what a run has learned, and there is no finished run of this "
                "profile: visloop run it first, or use --strategy greedy or best_of_n"
            )
        guides = Guides(scorer, trained.tau, trained.value, trained.backbone)
    searcher = Searcher(search, model, policy, guides, seed=seed, runtime=runtime)
    samples = [Sample(row.image_id, row.image_id, prompt, "test") for row in good]
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(good), runtime.batch_size):
        rows = slice(start, start + runtime.batch_size)
        for row, one in zip(
            good[rows], searcher.run([images.decode(g.image) for g in good[rows]], samples[rows]), strict=True
        ):
            found[row.image_id] = {"text": one.text, "steps": len(one.sentences), "stop_reason": one.stop_reason}
    return [
        {"path": str(path), **(found[row.image_id] if isinstance(row, Image) else {"error": row.detail})}
        for path, row in zip(paths, read, strict=True)
    ]


def latest_trained(profile: str) -> Trained | None:
    """What the latest finished run of a profile learned; None if there is none.

    The value model is that of the champion's own round or later, so that it knows the champion's sentences.
    """
    done = [run for run in runs.list_runs() if run.profile == profile and run.status == "completed"]
    return _learned(done[-1]) if done else None


def _learned(run: Run) -> Trained:
    outputs: dict[tuple[str, int], StageOutput] = {}
    for row in runs.stage_runs(run.run_id):
        if row.shard is None and row.label == "" and row.stage in ("label", "train_value", "finetune"):
            record, _ = records.recall(row.stage, row.key)
            if record is not None:
                outputs[row.stage, row.round] = record.output
    number = int(run.champion.removeprefix("round-")) if run.champion != "base" else 0
    champion = outputs.get(("finetune", number))
    # A round's value model was trained on the champion before it.
    guided = max((r for stage, r in outputs if stage == "label"), default=0)
    label, value = outputs.get(("label", guided)), outputs.get(("train_value", guided))
    backbone = None
    if value is not None:
        from tasks.core.models.value import read_spec

        digest = read_spec(checkpoints.folder(value["value"])).backbone
        backbone = ArtifactRef(kind="policy", digest=digest)
    tau = label.facts["tau"] if label is not None else None
    return Trained(
        run.run_id,
        champion["policy"] if champion is not None else None,
        value["value"] if value is not None else None,
        backbone,
        float(tau) if isinstance(tau, (int, float)) else None,
    )
