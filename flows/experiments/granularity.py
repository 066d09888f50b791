"""What a search chooses among: tokens, sentences, stages or whole answers, each at the same measured work."""

from __future__ import annotations

from dataclasses import replace

from flows.experiments.bench import Arm, arm, evidence, prepare_bench, tokens_of, wide, within
from flows.experiments.contract import Experiment
from flows.experiments.search_compare import over
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings
from tasks.report.experiment_figures import Plot

RIVALS = (  # grain, search, what is widened
    ("token", "beam", "candidates"),
    ("sentence", "clip_prm", "candidates"),
    ("stage", "swires", "captions"),
    ("whole answer", "best_of_n", "candidates"),
)
BEAMS, CAPTIONS = (1, 2, 3, 4), (2, 4, 8)


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """One search of each grain within VisVM's tokens; then beam widths and SWIRES' captions."""
    bench = prepare_bench(profile, ["visvm", "clip_prm", "swires"])
    most = profile.search.candidates
    greedy, own = arm(bench, "greedy"), named("sentence", wide(bench, "visvm", most))
    budget = tokens_of(bench, own)
    found = [evidence(bench, greedy), evidence(bench, own, [greedy], seen=True)]
    for grain, spec, key in RIVALS:
        one = named(grain, within(bench, spec, range(2, most + 1), budget, key))
        found.append(evidence(bench, one, [greedy, own], seen=True))
    if quick:
        return found
    staged = named("stage", arm(bench, "stage_beam"))
    found.append(evidence(bench, staged, [greedy, own], seen=True))
    for number in BEAMS:
        found.append(evidence(bench, wide(bench, "beam", number), [greedy]))
    for number in CAPTIONS:
        one = wide(bench, "swires", number, key="captions")
        found.append(evidence(bench, one, [greedy], seen=True))
    return found


def named(grain: str, one: Arm) -> Arm:
    """An arm called by its grain."""
    return replace(one, name=f"{grain}: {one.name}", x=None)


def answer(found: Findings) -> str:
    """Which grain is best at the same work, and what more beams and more captions do."""
    grains = [arm for arm in found.arms if ": " in arm]
    own, best = next(arm for arm in grains if "visvm" in arm), found.best("chair_i", grains)
    said = [
        f"{arm} {found.said(arm, 'chair_i')} for {found.said(arm, 'tokens')}{over(found, arm, own)}" for arm in grains
    ]
    rivals = [f"{arm} {found.compared(arm, own, 'chair_i')}" for arm in grains if arm != own]
    parts = [
        f"CHAIRi by what is chosen among (greedy: {found.said('greedy', 'chair_i')}): {'; '.join(said)}. Against {own}: "
        f"{'; '.join(rivals)}. The lowest has {best}."
    ]
    for line, word in (("beam", "beams"), ("swires", "captions")):
        arms = found.line(line)
        if arms:
            steps = [f"{found.x[one]:g} {word} {found.compared(one, 'greedy', 'chair_i')}" for one in arms]
            parts.append(f"{line} against greedy: {'; '.join(steps)}.")
    return " ".join(parts)


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "tokens", "ms", "stop: untagged", "stop: cutoff"),
    plot=Plot("arms", ("chair_i", "recall", "tokens")),
    method="Each search has the largest width whose captions take no more decoded tokens than VisVM's at the profile's "
    "candidates, or the narrowest tried. A policy that writes no tagged stages gives stage-wise searches whole "
    "answers to choose among (stop: untagged); their judge's verdicts count as tokens.",
)
