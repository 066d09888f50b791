"""The discount: V under several gammas against CLIP-PRM, which V with gamma = 0 should reproduce."""

from __future__ import annotations

from flows.experiments.bench import ACTION, HEAD, VOTE, Arm, arm, evidence, prepare_bench, value_facts, with_settings
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure, points
from tasks.report.experiment_figures import Plot

GAMMAS = (0.0, 0.5, 0.9, 0.97)
CHOICE, HEADED, WHOLE = "choice alone", "choice alone, V of the policy's states", "choice and end"
PRM_CHOICE, PRM_WHOLE = "CLIP-PRM, choice alone", "CLIP-PRM, choice and end"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Two settings: all searches end by vote, so that only choices differ; or each guide weighs the end, too."""
    bench = prepare_bench(profile, ["clip_prm", "visvm"])
    choice, whole = arm(bench, f"clip_prm:{VOTE}", PRM_CHOICE), arm(bench, f"clip_prm:{ACTION}", PRM_WHOLE)
    results = [evidence(bench, choice, with_trace=True), evidence(bench, whole, with_trace=True)]
    without: dict[str, Arm] = {}  # each line's arm at gamma = 0
    for gamma in GAMMAS[:: 2 if quick else 1]:
        for line, reads in ((CHOICE, {}), (HEADED, HEAD)):
            variant = with_settings(bench, value={**reads, "gamma": gamma})
            measured = arm(variant, f"visvm:{VOTE}", f"{line}@{gamma:g}", gamma)
            pairs = [choice, without.setdefault(line, measured)]
            results.append(evidence(variant, measured, pairs, like=choice, facts=value_facts(variant)))
        variant = with_settings(bench, value={"gamma": gamma})
        measured = arm(variant, f"visvm:{ACTION}", f"{WHOLE}@{gamma:g}", gamma)
        results.append(evidence(variant, measured, [whole], with_trace=True))
    return results


def answer(findings: Findings) -> str:
    """Whether gamma = 0 reproduces CLIP-PRM, whether a larger gamma is better, and what V does as the stop rule."""
    zero, last, whole = f"{CHOICE}@0", findings.line(CHOICE)[-1], findings.line(WHOLE)[-1]
    future = [f"{line}: {_better_than_none(findings, line)}" for line in (CHOICE, HEADED)]
    return (
        f"Without a future (gamma = 0) V puts {figure(findings, zero, 'pair_agreement')} of two first candidates in "
        f"CLIP-PRM's order; chance is 50. Where only choices differ, the gammas surely better than 0 are, for "
        f"{'; '.join(future)}; against CLIP-PRM, gamma = {findings.x[last]:g} has a CHAIRi "
        f"{findings.compared(last, PRM_CHOICE, 'chair_i')}. Where V also ends the caption, Recall at gamma = "
        f"{findings.x[whole]:g} is {findings.compared(whole, PRM_WHOLE, 'recall')}."
    )


def _better_than_none(findings: Findings, line: str) -> str:
    """The gammas of a line that are surely better than gamma = 0."""
    return points(
        findings, [arm for arm in findings.line(line) if findings.surely(arm, f"{line}@0", "chair_i") == "better"]
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_i", "recall", "length", "pair_agreement", "first_agreement", "rank_within", "spread", "tokens"),
    plot=Plot("lines", ("chair_i", "recall", "rank_within"), x="discount gamma"),
    method="Choice alone: end by vote, which uses neither V nor the scorer, so that nothing but the choices differs. "
    "Choice and end: where the policy proposes to end, VisVM does if no value is above 0, CLIP-PRM if no score is above "
    "the margin; with gamma = 0 and rewards shaped by the margin these are the same rule.",
)
