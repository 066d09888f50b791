"""Where candidates come from: one temperature for all, or several."""

from __future__ import annotations

from flows.experiments.bench import Arm, Bench, arm, config_of, evidence, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings
from tasks.report.experiment_figures import Plot

SINGLE = (0.1, 0.3, 0.5, 0.7, 0.9)
METHODS = ("visvm", "best_of_n")


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Each method with the profile's temperatures, and with each of them alone."""
    bench = prepare_bench(profile, METHODS)
    found = []
    for method in METHODS:
        several = arm(bench, method, several_of(method))
        found.append(evidence(bench, several, seen=True))
        found.append(evidence(bench, without_greedy(bench, method), [several], seen=True))
        for temperature in SINGLE[::4] if quick else SINGLE:
            found.append(evidence(bench, single(bench, method, temperature), [several], seen=True))
    return found


def several_of(method: str) -> str:
    """The arm with the profile's own temperatures."""
    return f"{method}, several"


def without_greedy(bench: Bench, method: str) -> Arm:
    """The profile's temperatures, and no greedy candidate among them."""
    return arm(bench, f"{method}:greedy=false", ungreedy_of(method))


def ungreedy_of(method: str) -> str:
    """The arm without a greedy candidate."""
    return f"{method}, none greedy"


def single(bench: Bench, method: str, temperature: float) -> Arm:
    """One temperature for all candidates but the greedy one."""
    config = config_of(bench, method).model_copy(update={"temperatures": (temperature,)})
    return arm(bench, method, f"{method}@{temperature:g}", temperature, config=config)


def answer(found: Findings) -> str:
    """Whether one temperature is as good as several, and how often the greedy candidate is taken."""
    pieces = []
    for method in METHODS:
        several, arms = several_of(method), found.line(method)
        best = found.best("chair_i", arms)
        worse = [f"{found.x[one]:g}" for one in arms if found.surely(one, several, "chair_i") == "worse"]
        better = [f"{found.x[one]:g}" for one in arms if found.surely(one, several, "chair_i") == "better"]
        verdict = "; ".join(
            f"surely {word} alone: {', '.join(some)}" for word, some in (("better", better), ("worse", worse)) if some
        )
        pieces.append(
            f"{method} with several temperatures has a CHAIRi of {found.said(several, 'chair_i')} and chooses the greedy "
            f"candidate {found.said(several, 'T=0')} of the time; the best single one is {found.x[best]:g} "
            f"({found.said(best, 'chair_i')}, {found.compared(best, several, 'chair_i')}); without a greedy candidate: "
            f"{found.compared(ungreedy_of(method), several, 'chair_i')}; "
            f"{verdict or 'no single one surely differs'}"
        )
    return f"{'. '.join(pieces)}."


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_i", "recall", "length", "distinct", "T=0", "wrong_proposed", "wrong_chosen", "tokens"),
    plot=Plot("lines", ("chair_i", "recall", "distinct"), x="temperature"),
    method="The profile's number of candidates, one of them greedy; dashed: its own temperatures dealt out over the "
    "others. T=0: share of choices that are the greedy candidate. Distinct: different texts among a step's "
    "candidates.",
)
