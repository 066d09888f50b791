"""The whole bill: what a method takes before its first caption and for each one, and where V has paid for itself."""

from __future__ import annotations

import math

from flows.experiments.bench import arm, evidence, prepare_bench, wide
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, spent, totals
from tasks.report.experiment_figures import Plot

V = "visvm"
CAPTIONS = (100, 1_000, 10_000, 100_000)
MARGIN, VALUE = ("rollout", "score", "shape_rewards"), ("train_value",)


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Methods that need nothing, the rewards' margin, or V; with the seconds that these took."""
    bench = prepare_bench(profile, [V, "clip_prm", "vimar"])
    margin = spent(*MARGIN)
    setup = {V: margin + spent(*VALUE), "vimar": margin + spent(*VALUE), "clip_prm": margin}
    width = profile.search.candidates
    own = wide(bench, V, width)
    others = [
        wide(bench, spec, width) for spec in ("clip_prm", "vimar", "best_of_n", "diverse_beam")[: 2 if quick else 4]
    ]
    others.append(wide(bench, "best_of_n", 2 * width if quick else 16))
    if not quick:
        others.append(arm(bench, "contrastive"))
    others.append(arm(bench, "greedy"))
    found = []
    for one in [own, *others]:
        seconds = setup.get(one.name.partition("@")[0], 0.0)
        found.append(evidence(bench, one, [own], facts={"setup_seconds": seconds}))
        found += totals(one.name.replace("@", " K="), one.found, profile.evaluate.images, seconds, CAPTIONS)
    return found


def answer(found: Findings) -> str:
    """The break-even of V against every method that is as good, or the reason why there is none."""
    own = next(one for one in found.arms if one.startswith(f"{V}@"))
    rivals = [one for one in found.arms if one != own and found.has(one, "chair_i")]
    good = [one for one in rivals if not _is_worse(found, one, own)]
    bad = [one for one in rivals if one not in good]
    first = (
        f"{own} takes {found.said(own, 'setup_seconds')} before its first caption (answers, rewards, training V) and "
        f"{found.said(own, 'ms')} for each, at a CHAIRi of {found.said(own, 'chair_i')}. "
    )
    if not good:
        return first + "No other method is as good, at any price."
    verdicts = [f"{one} {_break_even(found, own, one)}" for one in good]
    worse = f" Surely worse in CHAIRi or Recall, whatever they cost: {', '.join(bad)}." if bad else ""
    return f"{first}Against the methods that are not surely worse: {'; '.join(verdicts)}.{worse}"


def _is_worse(found: Findings, one: str, own: str) -> bool:
    return any(found.surely(one, own, metric) == "worse" for metric in ("chair_i", "recall"))


def _break_even(found: Findings, own: str, other: str) -> str:
    """After how many captions `own` has taken less time in all."""
    more = found.value(own, "setup_seconds") - found.value(other, "setup_seconds")
    less = (found.value(other, "ms") - found.value(own, "ms")) / 1000
    each = f"({found.said(other, 'ms')} each)"
    if less <= 0:
        return f"is never caught up with: it needs no V and no more time a caption {each}"
    return f"costs more from {math.ceil(max(more, 0.0) / less):,} captions on {each}"


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_i", "recall", "setup_seconds", "ms", "tokens"),
    plot=Plot("lines", ("total_seconds",), x="captions", log=True, log_y=True),
    method="Seconds before the first caption: drawing and scoring the first round's answers, where the margin is "
    "needed, and training V, where it is used; as measured when they were computed. best_of_n is greedy and "
    "sampled answers filtered by the scorer. The plot: seconds for so many captions, models loaded, on this "
    "machine.",
)
