"""ViMaR's two stages: the choice among whole answers, the refinement of weak sentences, both; and a sweep of the threshold."""

from __future__ import annotations

from flows.experiments.bench import arm, evidence, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure
from tasks.report.experiment_figures import Plot

BOTH = "both stages"
ARMS = {
    "greedy": "greedy",
    "stage 1 only": "best_of_n:by=value",
    "stage 2 only, on the greedy answer": "vimar:answers=1",
    BOTH: "vimar",
    "both, two sentences appended": "vimar:append=2",
    "both, as released": "vimar:published=true",
    "stage 1 only, by score": "best_of_n:by=score",
    "both, by score": "vimar:by=score",
}
QUICK = ("greedy", "stage 1 only", BOTH, "both, as released")
QUANTILES = (0.0, 0.1, 0.3, 0.5, 0.7)
SWEEP = "both, threshold"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Each stage alone, both, and both at several thresholds under which a sentence is refined."""
    bench = prepare_bench(profile, ["vimar", "vimar:by=score"])
    specs = {name: spec for name, spec in ARMS.items() if not quick or name in QUICK}
    arms = {name: arm(bench, spec, name) for name, spec in specs.items()}
    results = [
        evidence(bench, measured, [arms[BOTH], arms["stage 1 only"]], with_trace=True) for measured in arms.values()
    ]
    for q in QUANTILES[1::2] if quick else QUANTILES:
        measured = arm(bench, f"vimar:weak_quantile={q:g}", f"{SWEEP}@{q:g}", q)
        results.append(evidence(bench, measured, [arms[BOTH]], with_trace=True))
    return results


def answer(findings: Findings) -> str:
    """The effect of each stage and of the released second stage, and the best threshold."""
    first, released, sweep = "stage 1 only", "both, as released", findings.line(SWEEP)
    best = findings.best("chair_i", sweep)
    return (
        f"Choosing among whole answers brings CHAIRi from {figure(findings, 'greedy', 'chair_i')} to "
        f"{figure(findings, first, 'chair_i')}; refining weak sentences, too, to {figure(findings, BOTH, 'chair_i')}: "
        f"{findings.compared(BOTH, first, 'chair_i')}, Recall {findings.compared(BOTH, first, 'recall')}. "
        f"The released second stage, which only appends, against this one: "
        f"{findings.compared(released, BOTH, 'chair_i')}. Of the thresholds, q = {findings.x[best]:g} has the lowest "
        f"CHAIRi, {figure(findings, best, 'chair_i')}, at a Recall of {figure(findings, best, 'recall')}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "refined", "changed", "sentences", "tokens"),
    plot=Plot("arms", ("chair_i", "recall", "length")),
    method="Stage 1: the best of the profile's number of whole answers, by the mean guide of its sentences. Stage 2: a "
    "sentence under the threshold (search.weak_quantile of held-out values; by score: the margin) is replaced "
    "by the best new one that reaches it, or dropped. Stage 2 only: of the greedy answer, with as many proposals for "
    "each weak sentence.",
)
