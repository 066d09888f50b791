"""Controls in specs: `visvm:gamma=0` is a search by a second V, and every spec of VisVM or ViMaR has others beside it."""

from __future__ import annotations

from collections.abc import Sequence

from flows.experiments.bench import Arm, Bench, arm, tokens_of
from flows.profiles.loading import Profile, ProfileError
from flows.round.controls import best_of, controls_of, widest_equal
from tasks.configs.search import FORMER_STOPS, MOST_CANDIDATES, SearchConfig, extended, search_config, search_name

LINE = "best_of_n"
KEPT = {*SearchConfig.model_fields} - {"by", "end_value", "guide", "choose", "options"}  # by CLIP-PRM


def with_controls(profile: Profile, strategies: Sequence[str], controls: bool) -> dict[str, list[str]]:
    """Each spec, then its controls: spec -> the specs whose control it is."""
    specs: dict[str, list[str]] = {}
    for given in strategies:
        plain, gamma = split_gamma(given)
        spec = search_name(search_config(profile.search, plain), given)
        specs.setdefault(spec, [])
        for control in control_specs(profile, split_gamma(spec)[0], gamma) if controls else []:
            specs.setdefault(control, []).append(spec)
    return specs


def control_specs(profile: Profile, spec: str, gamma: float | None) -> list[str]:
    """Specs of the controls of a spec without its gamma; none where it is a control itself."""
    config = search_config(profile.search, spec)
    if gamma is not None:
        return []
    specs = []
    for control in controls_of(config):
        if control.changes.get("strategy") == "clip_prm":
            specs.append(_of_score(profile, spec))
        else:
            changes = {**control.changes, **({} if control.gamma is None else {"gamma": f"{control.gamma:g}"})}
            specs.append(extended(spec, *(f"{key}={value}" for key, value in changes.items())))
    return [*specs, best_of_spec(profile)] if specs else []


def _of_score(profile: Profile, spec: str) -> str:
    """CLIP-PRM with the settings of a spec, but for those on V's scale and the strategy's own."""
    parts = []
    for part in filter(None, spec.partition(":")[2].split(",")):
        key, _, value = part.partition("=")
        if key == "stop":  # in its present spelling, but for what ending is worth to V
            parts += [f"{name}={new}" for name, new in FORMER_STOPS[value].items() if name in KEPT]
        elif key in KEPT:
            parts.append(part)
    if profile.search.end_value is not None:
        parts.append("end_value=null")
    return extended("clip_prm", *parts)


def best_of_spec(profile: Profile) -> str:
    """Best of n by the score, whatever ranks answers in the profile."""
    return LINE if profile.search.by in (None, "score") else f"{LINE}:by=score"


def split_gamma(spec: str) -> tuple[str, float | None]:
    """The spec without its key `gamma`, and that; None where it has none.

    Raises:
        ProfileError: gamma is no discount.
    """
    name, _, rest = spec.partition(":")
    parts = [part for part in rest.split(",") if part]
    given = [part.partition("=")[2] for part in parts if part.partition("=")[0] == "gamma"]
    if not given:
        return spec, None
    try:
        gamma = float(given[-1])
    except ValueError:
        gamma = -1.0
    if not 0 <= gamma < 1:
        raise ProfileError(f"{spec!r}: gamma={given[-1]}: want V's discount, at least 0 and below 1")
    return extended(name, *(part for part in parts if part.partition("=")[0] != "gamma")), gamma


def best_of_equal(bench: Bench, budget: float, start: int) -> Arm:
    """Best of the largest n whose tokens per caption are within the budget."""
    line, search = best_of_spec(bench.profile), bench.profile.search
    return widest_equal(
        lambda n: arm(bench, f"{line}@{n}", x=float(n), config=best_of(search, n)),
        tokens_of,
        budget,
        start,
        MOST_CANDIDATES,
    )[1]
