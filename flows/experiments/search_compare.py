"""The papers' comparison at equal measured work: each rival has as many candidates as VisVM's decoded tokens allow."""

from __future__ import annotations

from dataclasses import replace

from flows.experiments.bench import arm, arm_at_width, evidence, prepare_bench, tokens_of, widest_within
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure, line_of, listed, verdicts
from tasks.report.experiment_figures import Plot

RIVALS = ("best_of_n", "clip_prm", "vimar", "vimar:by=score")


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Greedy, VisVM at the profile's candidates, and every rival at as many candidates as VisVM's tokens allow."""
    bench = prepare_bench(profile, ["visvm", *RIVALS])
    greedy, own = arm(bench, "greedy"), arm_at_width(bench, "visvm", profile.search.candidates)
    budget = tokens_of(own)
    most = profile.search.candidates + 2
    rivals = [
        widest_within(bench, spec, range(max(1, most - 5), most + 1), budget) for spec in RIVALS[: 2 if quick else None]
    ]
    visvm, *others = (
        (replace(measured, name=line_of(measured.name), x=None), {"candidates": measured.x})
        for measured in (own, *rivals)
    )  # without the number of candidates, which differs between seeds, in the name
    return [
        evidence(bench, greedy),
        evidence(bench, visvm[0], [greedy], with_trace=True, facts=visvm[1]),
        *(evidence(bench, rival, [greedy, visvm[0]], with_trace=True, facts=facts) for rival, facts in others),
    ]


def answer(findings: Findings) -> str:
    """Which search is best, and which surely differ from VisVM."""
    own = next(arm for arm in findings.arms if line_of(arm) == "visvm")
    rivals = [arm for arm in findings.arms if arm not in ("greedy", own)]
    best = findings.best("chair_i")
    lost = [arm for arm in findings.arms if arm != "greedy" and findings.surely(arm, "greedy", "recall") == "worse"]
    return (
        f"Within the tokens that {own} decodes the lowest CHAIRi has {best}, {figure(findings, best, 'chair_i')}; "
        f"{own} has {figure(findings, own, 'chair_i')}, greedy {figure(findings, 'greedy', 'chair_i')}. Beside {own}, "
        f"{verdicts(findings, rivals, own)}. Recall is surely below greedy's with {listed(lost) or 'none of them'}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "candidates", "tokens", "ms", "texts_scored", "value_tokens"),
    plot=Plot("arms", ("chair_i", "recall", "length")),
    method="All search the same images under the same prompts with the base policy, guided by the first round's "
    "rewards and V. K: candidates; each rival has the most that take no more decoded tokens than VisVM at the "
    "profile's own number, or the fewest tried.",
)
