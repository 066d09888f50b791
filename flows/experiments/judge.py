"""Judges of answers, on the same pairs: the policy itself, the reward model, and V."""

from __future__ import annotations

from dataclasses import replace

from flows.experiments.bench import arm, evidence, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.cross_examine import cross_examine
from tasks.analysis.findings import Evidence, Findings, figure, listed
from tasks.data.sample import take
from tasks.report.experiment_figures import Plot

GREEDY, SCORER, V, POLICY = "greedy", "the reward model", "V", "the policy itself"
BY = {SCORER: ("score", "scorer"), V: ("value", "value"), POLICY: ("judge", "policy")}
EXAMINED = 100  # images whose answers are compared in pairs


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The best of the same whole answers by each judge; then each judge's verdicts on pairs of them, in both orders."""
    bench = prepare_bench(profile, ["best_of_n:by=score", "best_of_n:by=value"])
    context, greedy = bench.context, arm(bench, GREEDY)
    arms = {name: arm(bench, f"best_of_n:by={by}", f"best of n by {name}") for name, (by, _) in BY.items()}
    count = 8 if quick else EXAMINED
    part = take.with_label("judge")(context.benchmark.samples, count=count, seed=profile.seed).part
    verdicts = cross_examine(
        profile.evaluate,
        context.base,
        context.benchmark.images,
        part,
        context.annotations,
        scores=arms[SCORER].result.search_trace,
        values=arms[V].result.search_trace,
    )
    results = [evidence(bench, greedy)]
    for name, (_, judge) in BY.items():
        measured = evidence(bench, arms[name], [greedy, arms[SCORER]])
        results.append(replace(measured, metrics=(*measured.metrics, verdicts.metrics[judge])))
    return results


def answer(findings: Findings) -> str:
    """Which judge is best, and whether the policy's verdicts are better than chance."""
    arms = {name: f"best of n by {name}" for name in BY}
    own, swapped = arms[POLICY], findings.cell(arms[POLICY], "swap_agreement")
    useless = "; it is no judge" if swapped is not None and swapped.value < 50 else ""
    pairs = listed([f"{name} {figure(findings, arm, 'pair_accuracy')}" for name, arm in arms.items()])
    chosen = listed([f"{name} {figure(findings, arm, 'chair_i')}" for name, arm in arms.items()])
    return (
        f"Of two answers of which one says less that is false, that one is named by {pairs} (chance: 50). The best of "
        f"whole answers by each has a CHAIRi of {chosen}; greedy {figure(findings, GREEDY, 'chair_i')}. Asked in both "
        f"orders the policy names the same answer for {figure(findings, own, 'swap_agreement')} of the pairs{useless}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=(
        "chair_i",
        "recall",
        "length",
        "pair_accuracy",
        "swap_agreement",
        "undecided",
        "first_wins",
        "tokens",
        "ms",
    ),
    plot=Plot("arms", ("chair_i", "pair_accuracy", "swap_agreement")),
    method="Pairs: the greedy answer with each other answer that the same search sampled, on at most 100 images; the better "
    "answer names fewer absent objects, and ties do not count. A verdict of the policy counts if both orders agree, "
    "and as one half otherwise; the other judges compare the mean score or value of an answer's sentences.",
)
