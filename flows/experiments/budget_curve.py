"""Quality against work for every method, and from which number of candidates on more of them surely gain nothing."""

from __future__ import annotations

from flows.experiments.bench import arm, arm_at_width, evidence, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, listed
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
    pieces, lines = [], [line for line in findings.lines() if findings.line(line)]
    for line in lines:
        knee, last = findings.knee(line, "chair_i"), findings.line(line)[-1]
        much = f"{findings.x[knee]:g}" if knee != last else f"{findings.x[last]:g} (more might still help)"
        pieces.append(f"{line} {much}: {findings.text(knee, 'chair_i')} for {findings.text(knee, 'tokens')}")
    ends = [findings.line(line)[-1] for line in lines]
    best = findings.best("chair_i", ends)
    knees = [findings.knee(line, "chair_i") for line in lines]
    near = [arm for arm in knees if findings.value(arm, "chair_i") <= 2 * findings.value(best, "chair_i")]
    cheap = findings.best("tokens", near)
    more = [
        line
        for line in lines
        if findings.surely(findings.line(line)[-1], findings.line(line)[0], "chair_i") == "better"
    ]
    return (
        f"Greedy captions have a CHAIRi of {findings.text('greedy', 'chair_i')}. The fewest candidates that are not "
        f"surely worse than the most tried: {'; '.join(pieces)}. More candidates surely lower CHAIRi for "
        f"{listed(more) or 'none of them'}. With the most candidates {best} is lowest "
        f"({findings.text(best, 'chair_i')})"
        + (f"; the least work within twice that is {cheap}." if cheap and cheap != best else ".")
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "tokens", "ms"),
    plot=Plot("lines", ("chair_i", "recall"), x="tokens", log=True, only=("greedy", *METHODS)),
    method="@K: candidates a step, or whole answers. Each point is paired with the widest of its line on the same "
    "images; the knee is the first that is not surely worse.",
)
