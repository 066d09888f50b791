"""Scorers by reference: open_clip models and installed rewards. Apart from the other models, for few stages need one."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from storage import checkpoints
from storage.artifacts import ArtifactRef
from tasks.configs import RuntimeConfig
from tasks.loading import device_of

KNOWN = "open_clip_name.txt"  # holds NAME/PRETRAINED where a scorer is one that open_clip knows
PLUGIN = "reward_plugin.txt"  # holds the name of an installed reward and a digest of its code

if TYPE_CHECKING:
    from tasks.core.models.scorer import Scorer
    from tasks.core.models.sentence_scores import Scores


def import_scorer(checkpoint: str) -> ArtifactRef:
    """A reference to a scorer: an open_clip folder, `hf-hub:ORG/NAME`, `NAME/PRETRAINED` as open_clip names it, `plugin:NAME`.

    A known one is kept as its name; open_clip finds the weights when they are first needed. A plug-in is kept as its name
    and a digest of its code.

    Raises:
        CheckpointNotFound: no such folder and no such repository.
        ValueError: none of the four forms.
    """
    if Path(checkpoint).is_dir():
        return checkpoints.import_checkpoint("scorer", checkpoint)
    if checkpoint.startswith("hf-hub:"):
        return checkpoints.import_checkpoint("scorer", checkpoint.removeprefix("hf-hub:"))
    if checkpoint.startswith("plugin:"):
        from tasks.core.models.plugin_scorer import code_of, find_reward

        name = checkpoint.removeprefix("plugin:")
        return _named_scorer(PLUGIN, f"{name}\n{code_of(find_reward(name))}")
    name, slash, pretrained = checkpoint.partition("/")
    if not (name and slash and pretrained) or "/" in pretrained:
        raise ValueError(
            f"scorer.checkpoint {checkpoint!r}: no such folder, and neither hf-hub:ORG/NAME nor NAME/PRETRAINED "
            "(for example ViT-L-14-336-quickgelu/openai) nor plugin:NAME"
        )
    return _named_scorer(KNOWN, checkpoint)


def _named_scorer(file: str, text: str) -> ArtifactRef:
    with checkpoints.scratch_folder() as folder:
        (folder / "scorer").mkdir()
        (folder / "scorer" / file).write_text(text)
        return checkpoints.publish_folder("scorer", folder / "scorer")


def load_scores(scorer: ArtifactRef, runtime: RuntimeConfig, counters: Counter[str]) -> Scores:
    """What scores sentences: the scorer's cosine, or an installed reward. Models are loaded once a process."""
    plugin = checkpoints.folder(scorer) / PLUGIN
    if plugin.is_file():
        from tasks.core.models.plugin_scorer import PluginScores, find_reward

        name = plugin.read_text().split()[0]
        return PluginScores(find_reward(name), name, counters)
    from tasks.core.models.sentence_scores import Cosines

    return Cosines(_kept_scorer(scorer, device_of(runtime)), counters)


@lru_cache(maxsize=1)
def _kept_scorer(scorer: ArtifactRef, device: str) -> Scorer:
    from tasks.core.models.scorer import load_scorer as load

    folder = checkpoints.folder(scorer)
    known = folder / KNOWN
    return load(known.read_text() if known.is_file() else folder, digest=scorer.digest, device=device)
