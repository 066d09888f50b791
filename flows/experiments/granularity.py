"""The unit that a search chooses among: tokens, sentences, stages or whole answers, at the same measured work."""

from __future__ import annotations

from dataclasses import replace

from flows.experiments.bench import Arm, arm, arm_at_width, evidence, prepare_bench, tokens_of, widest_within
from flows.experiments.contract import Experiment
from flows.experiments.granularity_answers import ON_ANSWERS
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure, listed, verdicts
from tasks.report.experiment_figures import Plot

RIVALS = (  # unit, search, the setting of its width
    ("token", "beam", "candidates"),
    ("sentence", "clip_prm", "candidates"),
    ("stage", "swires", "captions"),
    ("whole answer", "best_of_n", "candidates"),
)
BEAMS, CAPTIONS = (1, 2, 3, 4), (2, 4, 8)


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """One search of each unit within VisVM's tokens; then beam widths and SWIRES' captions."""
    bench = prepare_bench(profile, ["visvm", "clip_prm", "swires"])
    most = profile.search.candidates
    greedy, own = arm(bench, "greedy"), named("sentence", arm_at_width(bench, "visvm", most))
    budget = tokens_of(own)
    results = [evidence(bench, greedy), evidence(bench, own, [greedy], with_trace=True)]
    for grain, spec, key in RIVALS:
        measured = named(grain, widest_within(bench, spec, range(2, most + 1), budget, key))
        results.append(evidence(bench, measured, [greedy, own], with_trace=True))
    if quick:
        return results
    staged = named("stage", arm(bench, "stage_beam"))
    results.append(evidence(bench, staged, [greedy, own], with_trace=True))
    for number in BEAMS:
        results.append(evidence(bench, arm_at_width(bench, "beam", number), [greedy]))
    for number in CAPTIONS:
        measured = arm_at_width(bench, "swires", number, key="captions")
        results.append(evidence(bench, measured, [greedy], with_trace=True))
    return results


def named(grain: str, measured: Arm) -> Arm:
    """The arm, with the unit in its name."""
    return replace(measured, name=f"{grain}: {measured.name}", x=None)


def answer(findings: Findings) -> str:
    """Which unit is best at the same work, and what more beams and more captions gain."""
    grains = [arm for arm in findings.arms if ": " in arm]
    own, best = next(arm for arm in grains if "visvm" in arm), findings.best("chair_i", grains)
    rivals = [arm for arm in grains if arm != own]
    gain = [
        arm
        for line in ("beam", "swires")
        for arm in findings.line(line)
        if findings.surely(arm, "greedy", "chair_i") == "better"
    ]
    return (
        f"At the same work the lowest CHAIRi has {best}, {figure(findings, best, 'chair_i')} (greedy "
        f"{figure(findings, 'greedy', 'chair_i')}). Beside {own}, {verdicts(findings, rivals, own)}."
        + (
            f" Of beams and SWIRES, surely better than greedy: {listed(gain) or 'none'}."
            if findings.line("beam")
            else ""
        )
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "tokens", "ms", "stop: untagged", "stop: cutoff"),
    plot=Plot("arms", ("chair_i", "recall", "tokens")),
    method="Each search has the largest width whose captions take no more decoded tokens than VisVM's at the profile's "
    "candidates, or the narrowest tried. A policy that writes no tagged stages gives stage-wise searches whole "
    "answers to choose among (stop: untagged); their judge's verdicts count as tokens.",
    on_answers=ON_ANSWERS,
)
