"""ViMaR against VisVM on the demo: seconds and CHAIRi, with a value model that was trained by the stages."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

BY_VALUE = "visvm:stop=vote,candidates=30"  # asks for no scores, as the released search
VISVM = [*(f"visvm:candidates={k}" for k in (6, 12, 30)), BY_VALUE]
VIMAR = {f"vimar:{by}candidates={k}": k for by in ("", "by=score,") for k in (2, 3, 6, 30)}
PROFILE, PAPER = "visvm:candidates=6", "visvm:candidates=30"
TIMED = 16  # scenes, all in flight at once


def measure(scenes: int, repeats: int) -> dict[str, Any]:
    """CHAIRi of each search on held-out scenes, and its processor seconds a caption on the first of them."""
    from flows.profiles.loading import load_profile
    from flows.round.guide import lay_ground, learn_guide, search_captions
    from flows.round.improvement import scores_of
    from storage import lake
    from storage.schema import Sample
    from tasks.configs.search import search_config
    from tasks.models.loading import Pictures
    from tasks.search.searcher import Guides, Searcher

    profile = load_profile("demo", [f"evaluate.images={scenes}", "runtime.shards=1"])
    ground, base = lay_ground(profile)
    _, guide = learn_guide(profile, ground, base, 1, frozenset({"value"}))
    assert guide.value is not None
    torch.set_num_threads(1)
    images, samples = ground.bench["images"], ground.bench["samples"]
    todo = lake.read_rows(Sample, samples)[:TIMED]
    tau = guide.rewards.facts["tau"]
    assert isinstance(tau, float)
    guides = Guides(ground.scorer, tau, guide.value["value"], guide.backbone, guide.value["values"])
    configs = {spec: search_config(profile.search, spec) for spec in (*VISVM, *VIMAR)}
    quality = {}
    for spec, config in configs.items():
        found = search_captions(profile, ground, base, guide, config, images, samples)
        quality[spec] = scores_of(profile, ground, found, "base", spec).facts
    times: dict[str, list[tuple[float, float]]] = {spec: [] for spec in configs}
    for _ in range(repeats):
        for spec, config in configs.items():
            searcher = Searcher(config, profile.policy, base, guides, seed=profile.seed, runtime=profile.runtime)
            cpu, wall = time.process_time(), time.perf_counter()
            for _found in searcher.run(todo, Pictures(images, todo, TIMED)):
                pass
            times[spec].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        spec: {
            "chair_i": quality[spec]["chair_i"],
            "recall": quality[spec]["recall"],
            "cpu_per_caption": statistics.median(cpu for cpu, _ in several) / len(todo),
            "wall_per_caption": statistics.median(wall for _, wall in several) / len(todo),
        }
        for spec, several in times.items()
    }


def ratios(measured: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """VisVM's seconds over those of the fastest ViMaR whose CHAIRi is no higher, None where there is none.

    Against VisVM with the papers' 30 candidates a step, with the profile's 6, with values alone on both sides, and at equal
    candidates.
    """
    found: dict[str, Any] = {}
    for name, visvm in (("vimar_vs_visvm", PAPER), ("vimar_vs_visvm_profile", PROFILE)):
        found[name], found[f"{name}_by"] = _fastest(measured, visvm, list(VIMAR))
    found["vimar_vs_visvm_value_only"], found["vimar_vs_visvm_value_only_by"] = _fastest(
        measured, BY_VALUE, [spec for spec in VIMAR if "by=" not in spec]
    )
    for candidates, visvm in ((30, PAPER), (6, PROFILE)):
        same = [spec for spec, k in VIMAR.items() if k == candidates]
        name = f"vimar_vs_visvm_equal_candidates_{candidates}"
        found[name], found[f"{name}_by"] = _fastest(measured, visvm, same)
    return found


def _fastest(
    measured: Mapping[str, Mapping[str, float]], visvm: str, among: Sequence[str]
) -> tuple[float | None, str | None]:
    good = [spec for spec in among if measured[spec]["chair_i"] <= measured[visvm]["chair_i"]]
    if not good:
        return None, None
    best = min(good, key=lambda spec: measured[spec]["cpu_per_caption"])
    return measured[visvm]["cpu_per_caption"] / measured[best]["cpu_per_caption"], best
