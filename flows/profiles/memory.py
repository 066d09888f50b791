"""Whether a profile fits a device, and the smallest set of changes with which it does.

Changes are tried in the order of `KNOBS`: first those that leave results as they are, then those that change what learns,
then what is read or written. A set of fewer settings is preferred to one of more; within a set every setting goes
only as far as it must.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pydantic import ValidationError

from flows.profiles.loading import Profile, ProfileError, locate
from flows.round.train import train_needs
from tasks.data.sizes import ImageSize, largest_image
from tasks.models.architectures import facts_of
from tasks.models.memory import MemorySettings, StagePeak, UnknownImageCost, stage_peaks
from tasks.search.search import search_needs

Changes = dict[str, Any]  # dotted settings
MOST_KNOBS = 5
_UNITS = {"GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}


def device_bytes(text: str) -> int:
    """`80GB` or `79.6GiB` in bytes.

    Raises:
        ProfileError: not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)\s*", text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise ProfileError(f"--device-memory {text!r}: want a size with its unit, for example 80GB or 79.6GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


@dataclass(frozen=True)
class Knob:
    """A setting that saves memory: its milder values first, each with what must go along with it."""

    name: str
    values: Callable[[Profile], Iterator[Changes]]


def _halved(path: str, least: int) -> Knob:
    """Half, a quarter, ..., at least `least`."""

    def values(profile: Profile) -> Iterator[Changes]:
        now = _get(profile, path)
        while isinstance(now, int) and now > least:
            now = max(least, now // 2)
            yield {path: now}

    return Knob(path, values)


def _micro(section: str) -> Knob:
    path = f"{section}.micro_batch_size"

    def values(profile: Profile) -> Iterator[Changes]:
        now = min(_get(profile, path) or 1, _get(profile, f"{section}.batch_size"))
        while now > 1:
            now //= 2
            yield {path: now}

    return Knob(path, values)


def _switched(path: str, came: object, changes: Changes) -> Knob:
    return Knob(path, lambda profile: iter([changes] if _get(profile, path) == came else []))


def _fewer_pixels(profile: Profile) -> Iterator[Changes]:
    """Bounds that save tokens; none where the processor has no such setting."""
    facts, size = facts_of(locate(profile.policy.checkpoint)), image_size(profile).size
    tokens = facts.cost(size, profile.policy.max_pixels).tokens
    for side in (1536, 1024, 768, 672, 512, 448, 336):
        try:
            fewer = facts.cost(size, side**2).tokens
        except UnknownImageCost:
            return
        if fewer < tokens:
            tokens = fewer
            yield {"policy.max_pixels": side**2}


KNOBS = (
    _micro("finetune"),
    _micro("value"),
    _halved("runtime.batch_size", 1),
    _switched("policy.dtype", "float32", {"policy.dtype": "bfloat16"}),
    _switched("finetune.train", "full", {"finetune.train": "lora", "finetune.lr": 1e-5}),
    _switched("value.train", "full", {"value.train": "lora", "value.lr": 1e-4}),
    _switched(
        "value.reads",
        "image_and_text",
        {"value.reads": "policy_states", "value.lr": 1e-3, "value.epochs": 5, "value.batch_size": 32},
    ),
    Knob("policy.max_pixels", _fewer_pixels),
    _halved("rollout.max_new_tokens", 128),
    _halved("search.max_new_tokens", 128),
    _halved("search.candidates", 2),
)


def _get(profile: Profile, path: str) -> Any:
    value: Any = profile
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def changed(profile: Profile, changes: Mapping[str, Any]) -> Profile:
    """The profile with settings changed, checked again.

    Raises:
        ValidationError: settings that don't go together.
    """
    tree = profile.model_dump()
    for path, value in changes.items():
        *sections, name = path.split(".")
        section = tree
        for part in sections:
            section = section[part]
        section[name] = value
    return Profile.model_validate(tree)


def image_size(profile: Profile) -> ImageSize:
    """The largest image of the profile's two sources."""
    limit = profile.sample.max_megapixels
    sizes = [largest_image(source, limit) for source in (profile.data.train, profile.data.benchmark)]
    return max(sizes, key=lambda size: size.width * size.height)


def peaks_of(profile: Profile, size: ImageSize | None = None) -> list[StagePeak]:
    """The computed peak of every stage.

    Raises:
        ArchitectureUnknown, UnknownImageCost: the sizes of its models aren't known here.
    """
    needs = train_needs(profile)
    if "search" in profile.evaluate.decodings or profile.task == "answers":
        needs |= search_needs(profile.search)
    settings = MemorySettings(
        policy=profile.policy.model_copy(update={"checkpoint": locate(profile.policy.checkpoint)}),
        scorer=profile.scorer.model_copy(update={"checkpoint": locate(profile.scorer.checkpoint)}),
        rollout=profile.rollout,
        value=profile.value,
        search=profile.search,
        finetune=profile.finetune,
        runtime=profile.runtime,
        needs=needs,
        rollouts=profile.task == "captions" or profile.staged.verify == "agreement" or "answers" in needs,
        answers=profile.task == "answers",
        size=(size or image_size(profile)).size,
    )
    return stage_peaks(settings)


def fits(peaks: Sequence[StagePeak], memory: int) -> bool:
    """Whether every stage fits."""
    return all(peak.bytes <= memory for peak in peaks)


def smallest_changes(profile: Profile, memory: int, stage: str | None = None) -> Changes | None:
    """The first set of changes with which the profile, or one stage of it, fits; None where none does."""
    size = image_size(profile)

    def enough(changes: Mapping[str, Any]) -> bool:
        try:
            peaks = peaks_of(changed(profile, changes), size)
        except ValidationError:
            return False
        return fits([peak for peak in peaks if stage in (None, peak.stage)], memory)

    useful = [steps for knob in KNOBS if (steps := list(knob.values(profile)))]
    if not enough(_together(steps[-1] for steps in useful)):
        return None
    for count in range(1, min(MOST_KNOBS, len(useful)) + 1):
        for chosen in combinations(useful, count):
            if enough(_together(steps[-1] for steps in chosen)):
                return _relaxed(chosen, enough)
    return None


def _relaxed(chosen: Sequence[list[Changes]], enough: Callable[[Mapping[str, Any]], bool]) -> Changes:
    """Each setting only as far as it must, with the others as they are by then."""
    now = [steps[-1] for steps in chosen]
    for index, steps in reversed(list(enumerate(chosen))):
        for step in steps:
            trial = [*now[:index], step, *now[index + 1 :]]
            if enough(_together(trial)):
                now = trial
                break
    return _together(now)


def _together(steps: Iterator[Changes] | Sequence[Changes]) -> Changes:
    return {name: value for step in steps for name, value in step.items()}


def as_options(changes: Mapping[str, Any]) -> str:
    """Changes as they are typed: `--set a.b=1 --set c=d`."""
    return " ".join(f"--set {name}={value:g}" if isinstance(value, float) else f"--set {name}={value}"
                    for name, value in changes.items())  # fmt: skip
