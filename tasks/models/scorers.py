"""Scorers by reference: image-text models, installed rewards, the other kinds of reward, and sums of several.

A reference that is no model's folder is a small folder of our own: a name, or `reward.json` with the kind, its options and
references to what it needs. A model in another precision than float32 is such a reference too, so that the precision is a part
of every key that the scores are in. Apart from the other models, since most stages need none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import checkpoints
from storage.artifacts import ArtifactRef, Checkpoint, ScorerCheckpoint, canonical_json, reference
from tasks.configs.reward import (
    CompletenessReward,
    CosineReward,
    JudgeReward,
    LikelihoodReward,
    ObjectsReward,
    PluginReward,
    Reward,
)
from tasks.core.models.policy_settings import PolicySettings
from tasks.core.models.scorer_files import check_scorer_files
from tasks.models.handles import PolicyHandle
from tasks.models.loading import current_device, load_policy
from tasks.models.object_lists import OBJECTS, load_completeness, load_objects
from tasks.models.scorer_names import check_open_clip_name
from tasks.stage.quarantine import StageInputError

KNOWN = "open_clip_name.txt"  # holds NAME/PRETRAINED where a scorer is one of open_clip's own
PLUGIN = "reward_plugin.txt"  # holds the name of an installed reward and a digest of its code
REWARD = "reward.json"  # any other kind: {"kind", "options", "refs": {name: reference}}
COSINE, FULL_PRECISION = "cosine", "float32"  # a model in a precision of its own is of kind cosine

if TYPE_CHECKING:
    from tasks.core.models.scorer import Scorer
    from tasks.core.models.sentence_scores import Scores
    from tasks.models.endpoint import Endpoint


def import_scorer(checkpoint: str, dtype: str = FULL_PRECISION) -> ScorerCheckpoint:
    """A reference to a scorer: a folder, `hf-hub:ORG/NAME`, `NAME/PRETRAINED` as open_clip names it, `plugin:NAME`.

    A folder, and a hub repository's, is one of open_clip or of transformers, and its files are checked here. A name of
    open_clip's is stored; open_clip loads the weights when they are first needed. A plug-in is stored as its name and a digest
    of its code.

    Args:
        checkpoint: in one of the four forms.
        dtype: precision of the model's weights.

    Raises:
        CheckpointNotFound: no such folder and no such repository.
        ScorerError: a folder without a scorer, or with a weights file that is none.
        ValueError: none of the four forms, or a plug-in with a dtype.
    """
    if checkpoint.startswith("plugin:"):
        from tasks.core.models.plugin_scorer import code_of, find_reward

        if dtype != FULL_PRECISION:
            raise ValueError(f"scorer.dtype {dtype} for {checkpoint}: a plug-in loads its own model; leave dtype out")
        name = checkpoint.removeprefix("plugin:")
        return publish_scorer({PLUGIN: f"{name}\n{code_of(find_reward(name))}".encode()})
    model = _import_model(checkpoint)
    return model if dtype == FULL_PRECISION else publish_scorer(described(COSINE, {"dtype": dtype}, {"scorer": model}))


def _import_model(checkpoint: str) -> ScorerCheckpoint:
    """A reference to an image-text model in full precision."""
    if Path(checkpoint).is_dir() or checkpoint.startswith("hf-hub:"):
        model = checkpoints.import_checkpoint(ScorerCheckpoint, checkpoint.removeprefix("hf-hub:"))
        check_scorer_files(checkpoints.folder(model))
        return model
    check_open_clip_name(checkpoint)
    return publish_scorer({KNOWN: checkpoint.encode()})


def import_reward(
    reward: Reward,
    scorer: ScorerCheckpoint,
    policy: PolicyHandle,
    detections: ScorerCheckpoint | None = None,
    dtype: str = FULL_PRECISION,
) -> ScorerCheckpoint:
    """A reference to a reward of the profile; what it needs is in it as references, its weight is not.

    Args:
        reward: which.
        scorer: the profile's own, used where the reward names none.
        policy: the base policy, whose likelihood may be scored; not the one that is trained.
        detections: the output `objects` or `completeness` of `detect`, for a reward of that kind.
        dtype: precision of an image-text model that the reward names.

    Raises:
        CheckpointNotFound, ScorerError: as `import_scorer`.
        ValueError: a checkpoint of no known form, or a reward of detected objects without them.
        EndpointError: a judge's URL that can't be stored.
    """
    if isinstance(reward, CosineReward):
        return import_scorer(reward.checkpoint, FULL_PRECISION if reward.checkpoint.startswith("plugin:") else dtype)
    if isinstance(reward, PluginReward):
        return import_scorer(f"plugin:{reward.name}")
    if isinstance(reward, ObjectsReward | CompletenessReward):
        if detections is None or not (checkpoints.folder(detections) / OBJECTS).is_file():
            raise StageInputError(
                f"a reward {reward.kind} got {detections}: pass the output `{reward.kind}` of the stage detect"
            )
        return detections
    if isinstance(reward, LikelihoodReward):
        options: dict[str, Any] = {"contrast": reward.contrast, "prompt": reward.prompt}
        loaded = {
            "dtype": policy.dtype,
            "trust_remote_code": policy.trust_remote_code,
            "settings": asdict(policy.settings),
        }
        return publish_scorer(described(reward.kind, options | loaded, {"policy": policy.checkpoint}))
    if isinstance(reward, JudgeReward):
        endpoint = {"url": reward.url, "model": reward.model, "key_variable": reward.key_variable}
        _endpoint(endpoint)  # refuses a URL that must not be stored
        return publish_scorer(described(reward.kind, endpoint, {}))
    words = import_scorer(reward.checkpoint, dtype) if reward.checkpoint else scorer
    return publish_scorer(described(reward.kind, {}, {"scorer": words}))


def reward_name(reward: Reward) -> str:
    """A short name for tables: kind, and what distinguishes it from another of its kind."""
    if isinstance(reward, LikelihoodReward):
        return "likelihood" if reward.contrast else "likelihood uncontrasted"
    if isinstance(reward, ObjectsReward | CompletenessReward):
        return f"{reward.kind} {Path(reward.table).name}".strip()
    if isinstance(reward, JudgeReward):
        return f"judge {reward.model}"
    if isinstance(reward, PluginReward):
        return f"plugin {reward.name}"
    checkpoint = reward.checkpoint.removeprefix("hf-hub:")
    return f"{reward.kind} {'/'.join(Path(checkpoint).parts[-2:])}".strip()


def described(kind: str, options: Mapping[str, Any], refs: Mapping[str, ArtifactRef]) -> dict[str, bytes]:
    """The file that describes a reward of our own."""
    needs = {name: ref.model_dump() for name, ref in refs.items()}
    return {REWARD: canonical_json({"kind": kind, "options": dict(options), "refs": needs}).encode()}


def publish_scorer(files: Mapping[str, bytes]) -> ScorerCheckpoint:
    """A scorer's folder of these files; the same files, the same reference."""
    with checkpoints.scratch_folder() as folder:
        (folder / "scorer").mkdir()
        for name, content in files.items():
            (folder / "scorer" / name).write_bytes(content)
        return checkpoints.publish_folder(ScorerCheckpoint, folder / "scorer")


def _description(scorer: ScorerCheckpoint) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    """(kind, options, what it needs) of a reward of our own; None for an image-text model in float32 and a plug-in."""
    file = checkpoints.folder(scorer) / REWARD
    if not file.is_file():
        return None
    content = json.loads(file.read_text())
    return content["kind"], content["options"], {n: reference(ref) for n, ref in content["refs"].items()}


def needed_by(scorer: ScorerCheckpoint) -> Iterator[Checkpoint]:
    """All references that a scorer needs beside itself, and theirs."""
    described = _description(scorer)
    for ref in described[2].values() if described else ():
        yield ref
        if isinstance(ref, ScorerCheckpoint):
            yield from needed_by(ref)


def load_scores(scorer: ScorerCheckpoint, counters: Counter[str]) -> Scores:
    """What scores sentences, of whatever kind. Models are loaded once a process."""
    plugin = checkpoints.folder(scorer) / PLUGIN
    if plugin.is_file():
        from tasks.core.models.plugin_scorer import PluginScores, find_reward

        name = plugin.read_text().split()[0]
        return PluginScores(find_reward(name), name, counters)
    description = _description(scorer)
    if description is None or description[0] == COSINE:
        from tasks.core.models.sentence_scores import Cosines

        return Cosines(load_scorer(scorer), counters)
    kind, options, refs = description
    return _LOADERS[kind](checkpoints.folder(scorer), options, refs, counters)


Loader = Callable[[Path, dict[str, Any], dict[str, Any], Counter[str]], "Scores"]


def _load_likelihood(folder: Path, options: dict[str, Any], refs: dict[str, Any], counters: Counter[str]) -> Scores:
    from tasks.core.models.likelihood import likelihood_scores

    settings = PolicySettings(**options["settings"])
    policy = load_policy(PolicyHandle(refs["policy"], options["dtype"], options["trust_remote_code"], settings))
    return likelihood_scores(policy, options["prompt"], contrast=options["contrast"], counters=counters)


def _load_judge(folder: Path, options: dict[str, Any], refs: Any, counters: Counter[str]) -> Scores:
    from tasks.core.models.judge_scores import judge_scores

    return judge_scores(_endpoint(options).answers, counters)


def _load_token_clip(folder: Path, options: Any, refs: dict[str, Any], counters: Counter[str]) -> Scores:
    from tasks.core.models.token_clip import TokenCosines

    return TokenCosines(load_scores(refs["scorer"], counters), counters)


def _load_combined(folder: Path, options: dict[str, Any], refs: dict[str, Any], counters: Counter[str]) -> Scores:
    from tasks.core.models.combined import Combined, Scale

    parts = [load_scores(refs[str(index)], counters) for index in range(len(refs))]
    return Combined(parts, [Scale(**scale) for scale in options["scales"]])


_LOADERS: dict[str, Loader] = {
    "objects": load_objects,
    "completeness": load_completeness,
    "likelihood": _load_likelihood,
    "judge": _load_judge,
    "token_clip": _load_token_clip,
    "combined": _load_combined,
}


def _endpoint(options: Mapping[str, str]) -> Endpoint:
    from tasks.models.endpoint import Endpoint

    return Endpoint(options["url"], options["model"], options["key_variable"])


def load_scorer(scorer: ScorerCheckpoint) -> Scorer:
    """An image-text model, loaded once a process.

    Raises:
        ScorerError: the reference is to something else, or its model can't be loaded.
    """
    description = _description(scorer)
    if description is not None and description[0] == COSINE:
        return _cached_scorer(description[2]["scorer"], scorer.digest, description[1]["dtype"], current_device())
    return _cached_scorer(scorer, scorer.digest, FULL_PRECISION, current_device())


@lru_cache(maxsize=4)  # those of a sum
def _cached_scorer(model: ScorerCheckpoint, digest: str, dtype: str, device: str) -> Scorer:
    from tasks.core.models.scorer import load_scorer as load

    folder = checkpoints.folder(model)
    known = folder / KNOWN
    return load(known.read_text() if known.is_file() else folder, digest=digest, dtype=dtype, device=device)
