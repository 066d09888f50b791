"""Quality against work for every method, and from which number of candidates on more of them surely gain nothing."""

from __future__ import annotations

from flows.experiments.bench import arm, arm_at_width, evidence, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure, listed
from tasks.report.experiment_figures import Plot

METHODS = ("best_of_n", "clip_prm", "visvm", "vimar")
WIDTHS = (1, 2, 4, 8, 16)


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Every method at every number of candidates, paired with its largest."""
    bench = prepare_bench(profile, METHODS)
    results = [evidence(bench, arm(bench, "greedy"))]
    for method in METHODS:
        line = [arm_at_width(bench, method, width) for width in WIDTHS[: 3 if quick else None]]
        results += [evidence(bench, measured, [line[-1]]) for measured in line]
    return results


def answer(findings: Findings) -> str:
    """The knee of every line, and the best method at the most work."""
    lines = [line for line in findings.lines() if findings.line(line)]
    knees = [f"{line} {findings.x[findings.knee(line, 'chair_i')]:g}" for line in lines]
    ends = {line: findings.line(line)[-1] for line in lines}
    gain = [line for line, end in ends.items() if findings.surely(end, findings.line(line)[0], "chair_i") == "better"]
    best = findings.best("chair_i", ends.values())
    return (
        f"More candidates surely lower CHAIRi for {listed(gain) or 'none of the methods'}. The fewest that are not "
        f"surely worse than the most tried: {listed(knees)}. With the most, {best} is lowest: "
        f"{figure(findings, best, 'chair_i')} for {figure(findings, best, 'tokens')} a caption, greedy "
        f"{figure(findings, 'greedy', 'chair_i')}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "tokens", "ms"),
    plot=Plot("lines", ("chair_i", "recall"), x="tokens", log=True, only=("greedy", *METHODS)),
    method="@K: candidates a step, or whole answers. Each point is paired with the widest of its line on the same "
    "images; the knee is the first that is not surely worse.",
)
