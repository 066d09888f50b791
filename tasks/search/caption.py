"""Describe any images by any strategy: what `visloop caption` runs. Publishes nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from storage import checkpoints, images, records, runs
from storage.artifacts import ArtifactRef, StageOutput
from storage.schema import Image, ImageFile, Run, Sample
from tasks.configs.policy import PolicyConfig
from tasks.configs.search import SearchConfig
from tasks.search.searcher import Guides, Searcher
from tasks.stage.progress import Advance, progress
from tasks.stage.quarantine import StageInputError
from tasks.stage.runtime import RuntimeConfig

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.search.contract import SearchResult

log = logging.getLogger(__name__)

FEW = 3  # images that need no progress
NO_RUN = "what a run learns can't guide it: this profile has no finished run; `visloop run PROFILE` makes one"


class Trained(NamedTuple):
    """What a run left that captions can use."""

    run_id: str
    champion: ArtifactRef | None  # None: the base model was never beaten
    value: ArtifactRef | None
    backbone: ArtifactRef | None
    tau: float | None
    values: ArtifactRef | None  # the value model's estimates of held-out sentences
    answers: tuple[float, float] | None = None  # mean and deviation of its answers' scores


@dataclass(frozen=True)
class Described:
    """One image with its caption, or with what is wrong with the file."""

    path: Path
    result: SearchResult | None
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: path, text, steps (sentences) and stop_reason; or path and error."""
        if self.result is None:
            return {"path": str(self.path), "error": self.error}
        result = self.result
        caption = {"path": str(self.path), "text": result.text, "steps": len(result.sentences)}
        return caption | {"stop_reason": result.stop_reason}


def strategies() -> tuple[str, ...]:
    """Names of all strategies."""
    from tasks.core.search import registry

    return tuple(registry.names())


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
) -> list[Described]:
    """Each image with its caption, in the order of `paths`; a file that can't be used comes with the reason.

    Args:
        paths: image files, none of them twice.
        model: how to load the policy.
        policy: the checkpoint that answers.
        search: strategy and its settings.
        scorer: for strategies that score.
        trained: a run's value model and margins, for strategies that are guided by them.
        prompt: what to ask.
        seed: of every draw.
        runtime: how fast.

    Raises:
        StageInputError: the strategy needs something that is not there.
    """
    errors = _unusable(paths)
    samples = [Sample(str(path), str(path), prompt, "test") for path in paths if path not in errors]
    results: dict[str, SearchResult] = {}
    if samples:
        guides = Guides(scorer)
        if trained is not None:
            guides = Guides(scorer, trained.tau, trained.value, trained.backbone, trained.values, trained.answers)
        try:
            searcher = Searcher(search, model, policy, guides, seed=seed, runtime=runtime)
        except StageInputError as error:
            if trained is None:
                raise StageInputError(f"{error}\n  {NO_RUN}") from error
            raise
        with _watched(f"caption ({search.strategy})", len(samples)) as advance:
            for index, result in searcher.run(samples, _picture):
                results[samples[index].sample_id] = result
                advance(1)
    return [Described(path, results.get(str(path)), errors.get(path, "")) for path in paths]


def _unusable(paths: Sequence[Path]) -> dict[Path, str]:
    """What is wrong with the files that can't be used. No image is kept: there may be many."""
    errors = {}
    with _watched("read", len(paths)) as advance:
        for path in paths:
            row = images.read_image_file(path, image_id=str(path), source="command line", split="test", min_side=1)
            if not isinstance(row, Image):
                errors[path] = row.detail
            advance(1)
    return errors


def _picture(sample: Sample) -> PIL.Image.Image:
    return images.decode(ImageFile(bytes=None, path=sample.image_id))


def _watched(name: str, total: int) -> AbstractContextManager[Advance]:
    """Progress, where there is more than a moment's work."""
    return progress(name, total, unit="images") if total > FEW else nullcontext(lambda n=1: None)


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
    mean, std = (_fact(outputs.get(("label", guided)), name) for name in ("answer_mean", "answer_std"))
    label, value = outputs.get(("label", guided)), outputs.get(("train_value", guided))
    backbone = None
    if value is not None:
        from tasks.core.models.value import read_spec

        digest = read_spec(checkpoints.folder(value["value"])).backbone
        backbone = ArtifactRef(kind="policy", digest=digest)
    return Trained(
        run.run_id,
        champion["policy"] if champion is not None else None,
        value["value"] if value is not None else None,
        backbone,
        _fact(label, "tau"),
        value["values"] if value is not None else None,
        (mean, std) if mean is not None and std is not None else None,
    )


def _fact(output: StageOutput | None, name: str) -> float | None:
    fact = output.facts.get(name) if output is not None else None
    return float(fact) if isinstance(fact, (int, float)) else None
