"""`visloop caption`: any images, any strategy, the profile's model, its champion, or any other checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.profiles import Profile, locate
from storage.checkpoints import import_checkpoint
from tasks.caption import caption_images, latest_trained
from tasks.loading import import_scorer
from tasks.quarantine import StageInputError

CHAMPION = "champion"


def describe(
    paths: Sequence[Path], profile: Profile, strategy: str, checkpoint: str | None = None, prompt: str | None = None
) -> list[dict[str, Any]]:
    """Captions of image files: one dict each with path and text, or path and error.

    Args:
        paths: image files.
        profile: whose models, search settings and prompt to use.
        strategy: greedy, best_of_n, clip_prm or visvm; the last two are guided by the profile's latest finished run.
        checkpoint: a folder or hub id in place of the profile's policy; `champion` is the latest run's best model.
        prompt: what to ask; the first of the profile's pool if left out.
    """
    trained = latest_trained(profile.name)
    if checkpoint == CHAMPION:
        if trained is None:
            raise StageInputError(
                f"no finished run of profile {profile.name} has a champion: visloop run {profile.name}"
            )
        policy = trained.champion or import_checkpoint("policy", locate(profile.policy.checkpoint))
    else:
        policy = import_checkpoint("policy", locate(checkpoint or profile.policy.checkpoint))
    search = profile.search.model_copy(update={"strategy": strategy})
    scorer = None if strategy == "greedy" else import_scorer(locate(profile.scorer.checkpoint))
    return caption_images(
        paths,
        model=profile.policy,
        policy=policy,
        search=search,
        scorer=scorer,
        trained=trained,
        prompt=prompt or profile.sample.prompts[0],
        seed=profile.seed,
        runtime=profile.runtime,
    )
