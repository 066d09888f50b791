"""Total cost: what a method takes before its first caption and per caption, and when training V has paid off."""

from __future__ import annotations

import math

from flows.experiments.bench import arm, arm_at_width, captions_of, evidence, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure, listed, spent, totals
from tasks.report.experiment_figures import Plot
from tasks.reward.score import score
from tasks.reward.shape_rewards import shape_rewards
from tasks.rollout.rollout import rollout
from tasks.value.train_value import train_value

V = "visvm"
CAPTIONS = (100, 1_000, 10_000, 100_000)
MARGIN, VALUE = (rollout.name, score.name, shape_rewards.name), (train_value.name,)


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Methods that need no preparation, the rewards' margin, or V, with the seconds that these took."""
    bench = prepare_bench(profile, [V, "clip_prm", "vimar"])
    margin = spent(*MARGIN)
    setup = {V: margin + spent(*VALUE), "vimar": margin + spent(*VALUE), "clip_prm": margin}
    width = profile.search.candidates
    own = arm_at_width(bench, V, width)
    others = [
        arm_at_width(bench, spec, width)
        for spec in ("clip_prm", "vimar", "best_of_n", "diverse_beam")[: 2 if quick else 4]
    ]
    others.append(arm_at_width(bench, "best_of_n", 2 * width if quick else 16))
    if not quick:
        others.append(arm(bench, "contrastive"))
    others.append(arm(bench, "greedy"))
    results = []
    for measured in [own, *others]:
        seconds = setup.get(measured.name.partition("@")[0], 0.0)
        results.append(evidence(bench, measured, [own], facts={"setup_seconds": seconds}))
        results += totals(measured.name.replace("@", " K="), measured.result, captions_of(measured), seconds, CAPTIONS)
    return results


def answer(findings: Findings) -> str:
    """The break-even of V against every method that is as good, or why there is none."""
    own = next(arm for arm in findings.arms if arm.startswith(f"{V}@"))
    rivals = [arm for arm in findings.arms if arm != own and findings.has(arm, "chair_i")]
    good = [arm for arm in rivals if not _is_worse(findings, arm, own)]
    bad = [arm for arm in rivals if arm not in good]
    verdicts = listed([f"{arm} {_break_even(findings, own, arm)}" for arm in good])
    return (
        f"{own} takes {figure(findings, own, 'setup_seconds')} before its first caption and "
        f"{figure(findings, own, 'ms')} for each. "
        + (f"Of the methods that are as good, {verdicts}." if good else "No other method is as good.")
        + (f" Surely worse in CHAIRi or Recall: {listed(bad)}." if bad else "")
    )


def _is_worse(findings: Findings, arm: str, own: str) -> bool:
    return any(findings.surely(arm, own, metric) == "worse" for metric in ("chair_i", "recall"))


def _break_even(findings: Findings, own: str, other: str) -> str:
    """After how many captions `own` has taken less time in total."""
    more = findings.value(own, "setup_seconds") - findings.value(other, "setup_seconds")
    less = (findings.value(other, "ms") - findings.value(own, "ms")) / 1000
    if less <= 0:
        return "is never dearer"
    return f"is dearer from {math.ceil(max(more, 0.0) / less):,} captions on"


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_i", "recall", "setup_seconds", "ms", "tokens"),
    plot=Plot("lines", ("total_seconds",), x="captions", log=True, log_y=True),
    method="Seconds before the first caption: sampling and scoring the first round's rollouts, where the margin is "
    "needed, and training V, where it is used; as measured when they were computed. best_of_n is greedy and "
    "sampled answers filtered by the scorer. The plot: seconds for so many captions, models loaded, on this "
    "machine.",
)
