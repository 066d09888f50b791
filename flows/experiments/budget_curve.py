"""More candidates: quality against work for every method, and from where on more of them surely buy nothing."""

from __future__ import annotations

from flows.experiments.bench import arm, evidence, prepare_bench, wide
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, listed
from tasks.report.experiment_figures import Plot

METHODS = ("best_of_n", "clip_prm", "visvm", "vimar")
WIDTHS = (1, 2, 4, 8, 16)


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Every method at every width, paired with its widest."""
    bench = prepare_bench(profile, METHODS)
    found = [evidence(bench, arm(bench, "greedy"))]
    for method in METHODS:
        line = [wide(bench, method, width) for width in WIDTHS[: 3 if quick else None]]
        found += [evidence(bench, one, [line[-1]]) for one in line]
    return found


def answer(found: Findings) -> str:
    """The knee of every line, and which one is best at the most work."""
    pieces, lines = [], [line for line in found.lines() if found.line(line)]
    for line in lines:
        knee, last = found.knee(line, "chair_i"), found.line(line)[-1]
        much = f"{found.x[knee]:g}" if knee != last else f"{found.x[last]:g} (more might still help)"
        pieces.append(f"{line} {much}: {found.said(knee, 'chair_i')} for {found.said(knee, 'tokens')}")
    ends = [found.line(line)[-1] for line in lines]
    best = found.best("chair_i", ends)
    knees = [found.knee(line, "chair_i") for line in lines]
    near = [one for one in knees if found.value(one, "chair_i") <= 2 * found.value(best, "chair_i")]
    cheap = found.best("tokens", near)
    more = [line for line in lines if found.surely(found.line(line)[-1], found.line(line)[0], "chair_i") == "better"]
    return (
        f"Greedy captions have a CHAIRi of {found.said('greedy', 'chair_i')}. The fewest candidates that are not surely worse "
        f"than the most tried: {'; '.join(pieces)}. More candidates surely lower CHAIRi for {listed(more) or 'none of them'}. "
        f"With the most candidates {best} is lowest ({found.said(best, 'chair_i')})"
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
