"""ViMaR's two stages: the choice among whole answers, the refinement of weak sentences, both; and a sweep of the threshold."""

from __future__ import annotations

from flows.experiments.bench import arm, evidence, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings
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
    first, parts = "stage 1 only", []
    parts.append(
        f"Choosing among whole answers brings CHAIRi from {findings.text('greedy', 'chair_i')} to "
        f"{findings.text(first, 'chair_i')}; refining the weak sentences of the winner, too, to "
        f"{findings.text(BOTH, 'chair_i')}, {findings.compared(BOTH, first, 'chair_i')}, with Recall "
        f"{findings.compared(BOTH, first, 'recall')}. {findings.text(BOTH, 'refined')} of the answers are refined, "
        f"{findings.text(BOTH, 'changed')} sentences each on average."
    )
    second = "stage 2 only, on the greedy answer"
    if second in findings.arms:
        parts.append(
            f"Refinement alone: {findings.text(second, 'chair_i')}, {findings.compared(second, BOTH, 'chair_i')} "
            "against both."
        )
    released = "both, as released"
    parts.append(
        f"The released second stage, which appends and removes nothing, has {findings.text(released, 'chair_i')} "
        f"({findings.compared(released, BOTH, 'chair_i')}; length {findings.compared(released, BOTH, 'length')})."
    )
    arms = findings.line(SWEEP)
    best = findings.best("chair_i", arms)
    parts.append(
        f"The stricter the threshold, from q = {findings.x[arms[0]]:g} to {findings.x[arms[-1]]:g}, CHAIRi goes from "
        f"{findings.text(arms[0], 'chair_i')} to {findings.text(arms[-1], 'chair_i')} and Recall from "
        f"{findings.text(arms[0], 'recall')} to {findings.text(arms[-1], 'recall')}; the lowest CHAIRi has q = "
        f"{findings.x[best]:g}."
    )
    score = "both, by score"
    if score in findings.arms:
        parts.append(f"Guided by the score and not by V, both stages have {findings.text(score, 'chair_i')}.")
    return " ".join(parts)


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
