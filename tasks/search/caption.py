"""Describe any images by any strategy: what `visloop caption` runs. Publishes nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from storage import checkpoints, images, records, runs
from storage.artifacts import PolicyCheckpoint, ScorerCheckpoint, StageOutput, ValueCheckpoint
from storage.schema import Image, ImageFile, Run, Sample, Value
from tasks.configs.search import SearchConfig
from tasks.models.handles import UNGUIDED, Guide, PolicyHandle, ValueHandle
from tasks.models.loading import image_refusal
from tasks.models.zero_shot import objects_of
from tasks.search.searcher import Searcher, needs_of, settings_of
from tasks.stage.progress import Advance, progress
from tasks.stage.quarantine import StageInputError

if TYPE_CHECKING:
    import PIL.Image

    from tasks.core.search.contract import SearchResult

log = logging.getLogger(__name__)

TRAINING = ("finetune", "train_dpo", "train_grpo", "train_fisao", "train_sentinel")  # the stages that give a policy
FEWEST_SHOWN = 4  # images from which on progress is shown
NO_RUN = "what a run learns can't guide it: this profile has no finished run; `visloop run PROFILE` makes one"


class Trained(NamedTuple):
    """What a run left that captions can use."""

    run_id: str
    champion: PolicyCheckpoint | None  # None: no round was promoted, or its checkpoint is not to be found
    guide: Guide  # of its last round, without the scorer
    promoted: str = "base"  # the champion's name
    dtypes: Mapping[str, str] = MappingProxyType({})  # digest of a policy that the run trained -> what it is loaded in


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
    config: SearchConfig,
    policy: PolicyHandle,
    *,
    scorer: ScorerCheckpoint | None,
    trained: Trained | None,
    prompt: str,
    seed: int,
) -> list[Described]:
    """Each image with its caption, in the order of `paths`; a file that can't be used comes with the reason.

    Args:
        paths: image files, none of them twice.
        config: strategy and its settings.
        policy: who answers.
        scorer: for strategies that score, or that weigh what is in an image.
        trained: a run's value model and margins, for strategies that are guided by them.
        prompt: of every image.
        seed: of every draw.

    Raises:
        StageInputError: the strategy needs something that is not there.
    """
    errors = _unusable(paths, policy)
    samples = [Sample(str(path), str(path), prompt, "test") for path in paths if path not in errors]
    results: dict[str, SearchResult] = {}
    if samples:
        guide = replace(UNGUIDED if trained is None else trained.guide, scorer=scorer)
        if guide.value is not None:  # it is loaded as the policy is, unless the run saved it in another format
            backbone = guide.value.value_backbone.checkpoint
            dtype = trained.dtypes.get(backbone.digest, policy.dtype) if trained else policy.dtype
            value_backbone = replace(policy, checkpoint=backbone, dtype=dtype)
            guide = replace(guide, value=replace(guide.value, value_backbone=value_backbone))
        if scorer is not None and "objects" in needs_of(config, settings_of(config, UNGUIDED)):
            pictures = ((sample.image_id, _picture(sample)) for sample in samples)
            guide = replace(guide, objects=objects_of(pictures, scorer))
        try:
            searcher = Searcher(config, policy, guide, seed=seed)
        except StageInputError as error:
            if trained is None:
                raise StageInputError(f"{error}\n  {NO_RUN}") from error
            raise
        with _watched(f"caption ({config.strategy})", len(samples)) as advance:
            for index, result in searcher.run(samples, _picture):
                results[samples[index].sample_id] = result
                advance(1)
    return [Described(path, results.get(str(path)), errors.get(path, "")) for path in paths]


def _unusable(paths: Sequence[Path], policy: PolicyHandle) -> dict[Path, str]:
    """What is wrong with the files that can't be used. No image is held in memory: there may be many."""
    errors = {}
    refusal = image_refusal(policy)
    with _watched("read", len(paths)) as advance:
        for path in paths:
            row = images.read_image_file(path, image_id=str(path), source="command line", split="test", min_side=1)
            if not isinstance(row, Image):
                errors[path] = row.detail
            elif problem := refusal(row.width, row.height):
                errors[path] = f"{path.name}: {problem}"
            advance(1)
    return errors


def _picture(sample: Sample) -> PIL.Image.Image:
    return images.decode(ImageFile(bytes=None, path=sample.image_id))


def _watched(name: str, total: int) -> AbstractContextManager[Advance]:
    """Progress, where there is more than a moment's work."""
    return progress(name, total, unit="images") if total >= FEWEST_SHOWN else nullcontext(lambda n=1: None)


def latest_trained(profile: str) -> Trained | None:
    """What the latest finished run of a profile learned; None if there is none.

    The value model is that of the champion's own round or later, so that it was fitted on the champion's sentences.
    """
    done = [run for run in runs.list_runs() if run.profile == profile and run.status == "completed"]
    return _learned(done[-1]) if done else None


def _learned(run: Run) -> Trained:
    outputs: dict[tuple[str, int], StageOutput] = {}
    for row in runs.stage_runs(run.run_id):
        if row.shard is None and row.label == "" and row.stage in ("shape_rewards", "train_value", *TRAINING):
            record, _ = records.load(row.stage, row.key)
            if record is not None:
                name = "train" if row.stage in TRAINING else row.stage
                outputs[name, row.round] = record.output
    number = int(run.champion.removeprefix("round-")) if run.champion != "base" else 0
    trained = outputs.get(("train", number))
    champion = trained.refs.get("policy") if trained is not None else None
    # A round's value model was trained on the champion before it.
    guided = max((r for stage, r in outputs if stage == "shape_rewards"), default=0)
    rewards, learned = outputs.get(("shape_rewards", guided)), outputs.get(("train_value", guided))
    margin, end_value, *answers = (
        _fact(rewards, name) for name in ("margin", "end_value", "answer_mean", "answer_std")
    )
    mean, std = answers
    answer_scores = (mean, std) if mean is not None and std is not None else None
    guide = Guide(margin=margin, end_value=end_value, answer_scores=answer_scores)
    if learned is not None:
        guide = replace(guide, value=_value(learned), held_out=learned.table(Value, "values"))
    dtypes = {
        output.refs["policy"].digest: str(output.facts["dtype"])
        for (stage, _), output in outputs.items()
        if stage == "train" and "policy" in output.refs and "dtype" in output.facts
    }
    best = champion if isinstance(champion, PolicyCheckpoint) else None
    return Trained(run.run_id, best, guide, run.champion, dtypes)


def _value(learned: StageOutput) -> ValueHandle:
    """The value model with its backbone, which its spec names."""
    from tasks.core.models.value import read_spec

    value = cast(ValueCheckpoint, learned.refs["value"])
    value_backbone = read_spec(checkpoints.folder(value)).backbone
    return ValueHandle(value, PolicyHandle(PolicyCheckpoint.of(value_backbone)))


def _fact(output: StageOutput | None, name: str) -> float | None:
    fact = output.facts.get(name) if output is not None else None
    return float(fact) if isinstance(fact, (int, float)) else None
