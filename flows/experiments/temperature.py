"""Temperatures of a search's candidates: a single one for all, or several."""

from __future__ import annotations

from flows.experiments.bench import Arm, Bench, arm, config_of, evidence, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure, points
from tasks.report.experiment_figures import Plot

SINGLE = (0.1, 0.3, 0.5, 0.7, 0.9)
METHODS = ("visvm", "best_of_n")


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Each method with the profile's temperatures, without a greedy candidate, and with single temperatures."""
    bench = prepare_bench(profile, METHODS)
    results = []
    for method in METHODS:
        several = arm(bench, method, several_of(method))
        results.append(evidence(bench, several, with_trace=True))
        results.append(evidence(bench, without_greedy(bench, method), [several], with_trace=True))
        for temperature in SINGLE[::4] if quick else SINGLE:
            results.append(evidence(bench, single(bench, method, temperature), [several], with_trace=True))
    return results


def several_of(method: str) -> str:
    """Name of the arm with the profile's temperatures."""
    return f"{method}, several"


def without_greedy(bench: Bench, method: str) -> Arm:
    """The profile's temperatures without a greedy candidate."""
    return arm(bench, f"{method}:greedy=false", ungreedy_of(method))


def ungreedy_of(method: str) -> str:
    """Name of the arm without a greedy candidate."""
    return f"{method}, none greedy"


def single(bench: Bench, method: str, temperature: float) -> Arm:
    """The same temperature for all candidates but the greedy one."""
    config = config_of(bench, method).model_copy(update={"temperatures": (temperature,)})
    return arm(bench, method, f"{method}@{temperature:g}", temperature, config=config)


def answer(findings: Findings) -> str:
    """Whether a single temperature is as good as several, and whether the greedy candidate helps."""
    sentences = []
    for method in METHODS:
        several, arms = several_of(method), findings.line(method)
        best = findings.best("chair_i", arms)
        sides = {
            side: points(findings, [arm for arm in arms if findings.surely(arm, several, "chair_i") == side])
            for side in ("better", "worse")
        }
        sentences.append(
            f"{method}: of single temperatures {findings.x[best]:g} is best ({figure(findings, best, 'chair_i')}; several "
            f"{figure(findings, several, 'chair_i')}); surely better than several {sides['better']}, surely worse "
            f"{sides['worse']}."
        )
    without = [
        f"{method} {findings.compared(ungreedy_of(method), several_of(method), 'chair_i')}" for method in METHODS
    ]
    return f"{' '.join(sentences)} Without a greedy candidate CHAIRi is, for {'; '.join(without)}."


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_i", "recall", "length", "distinct", "T=0", "wrong_proposed", "wrong_chosen", "tokens"),
    plot=Plot("lines", ("chair_i", "recall", "distinct"), x="temperature"),
    method="The profile's number of candidates, one of them greedy; dashed: its own temperatures spread over the "
    "others. T=0: share of choices that are the greedy candidate. Distinct: different texts among a step's "
    "candidates.",
)
