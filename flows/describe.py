"""`visloop caption`: any images, any strategy, the profile's model, its champion, or any other checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from flows.profiles.errors import explain
from flows.profiles.loading import Profile, ProfileError, locate
from storage.images import SUFFIXES, scan_folder
from tasks.configs.search import SearchConfig, search_config
from tasks.models.checks import import_policy
from tasks.models.handles import PolicyHandle
from tasks.models.scorers import import_scorer
from tasks.report.explain_page import write_page
from tasks.search.caption import Described, Trained, caption_images, latest_trained
from tasks.search.search import search_needs
from tasks.stage.quarantine import StageInputError
from tasks.stage.runtime import use_runtime

CHAMPION = "champion"


def describe(
    paths: Sequence[Path],
    profile: Profile,
    strategy: str,
    *,
    checkpoint: str | None = None,
    prompt: str | None = None,
    page: Path | None = None,
) -> list[Described]:
    """Captions of image files, and of all images in folders.

    Args:
        paths: image files and folders; a folder is searched through all its levels.
        profile: whose models, search settings and prompt to use.
        strategy: a name, or NAME:key=value,key=value; what it is guided by comes from the profile's latest finished run.
        checkpoint: a folder or hub id in place of the profile's policy; `champion` is the latest run's best model.
        prompt: what to ask; the first of the profile's pool if left out.
        page: where to write how each caption was found, as HTML; nowhere if left out or if no image could be read.

    Raises:
        ProfileError: a strategy or a setting of it that there isn't.
        StageInputError: a folder without images, or something that the strategy needs is not there.
    """
    files = find_images(paths)
    search = _search_config(profile, strategy)
    trained = latest_trained(profile.name)
    policy = _policy(profile, checkpoint, trained)
    prompt = prompt or profile.sample.prompts[0]
    with use_runtime(profile.runtime):
        captions = caption_images(
            files,
            search,
            policy,
            scorer=import_scorer(locate(profile.scorer.checkpoint), profile.scorer.dtype)
            if search_needs(search) & {"scorer", "objects"}
            else None,
            trained=trained,
            prompt=prompt,
            seed=profile.seed,
        )
    if page is not None and any(caption.result for caption in captions):
        named = checkpoint or profile.policy.checkpoint
        if trained is not None and checkpoint == CHAMPION:
            named = f"champion of {trained.run_id}"
        facts = {"strategy": strategy, "policy": named, "profile": profile.name, "seed": profile.seed, "prompt": prompt}
        write_page(page, captions, facts)
    return captions


def _policy(profile: Profile, checkpoint: str | None, trained: Trained | None) -> PolicyHandle:
    """Who answers: the profile's policy, another checkpoint, or the champion of the latest run."""
    default = profile.policy.checkpoint
    if checkpoint != CHAMPION:
        return import_policy(locate(checkpoint or default), profile.policy)
    if trained is None:
        raise StageInputError(f"no finished run of profile {profile.name} has a champion: visloop run {profile.name}")
    if trained.champion is not None:
        loaded = PolicyHandle.of(trained.champion, profile.policy)
        return replace(loaded, dtype=trained.dtypes.get(trained.champion.digest, loaded.dtype))
    if trained.promoted == "base":
        return import_policy(locate(default), profile.policy)
    raise StageInputError(
        f"run {trained.run_id}: its champion, {trained.promoted}, is no longer in the store, or an earlier version of "
        f"visloop made it; visloop run {profile.name} makes one"
    )


def _search_config(profile: Profile, strategy: str) -> SearchConfig:
    try:
        return search_config(profile.search, strategy)
    except ValidationError as error:
        raise ProfileError(explain(error, SearchConfig, f"--strategy {strategy}")) from None
    except ValueError as error:
        raise ProfileError(f"--strategy {error}") from None


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files as they are, and every image in the folders, sorted; none twice.

    Raises:
        StageInputError: a folder has no image.
    """
    images: dict[Path, None] = {}
    for path in paths:
        files = scan_folder(path) if path.is_dir() else [path]
        if not files:
            kinds = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
            raise StageInputError(f"{path}: no images in this folder or below it; wanted files that end in {kinds}")
        images |= dict.fromkeys(files)
    return list(images)
