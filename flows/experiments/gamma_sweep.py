"""The long view: V under several discounts against CLIP-PRM, which V without a future should reproduce."""

from __future__ import annotations

from flows.experiments.bench import HEAD, Arm, arm, evidence, prepare_bench, value_facts, with_settings
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, listed
from tasks.report.experiment_figures import Plot

GAMMAS = (0.0, 0.5, 0.9, 0.97)
CHOICE, HEADED, WHOLE = "choice alone", "choice alone, V of the policy's states", "choice and stop"
PRM_CHOICE, PRM_WHOLE = "CLIP-PRM, choice alone", "CLIP-PRM, choice and stop"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Two settings: both stop by vote, so that only choices differ; or each guide says itself when to stop."""
    bench = prepare_bench(profile, ["clip_prm", "visvm"])
    choice, whole = arm(bench, "clip_prm:stop=vote", PRM_CHOICE), arm(bench, "clip_prm:stop=reward", PRM_WHOLE)
    found = [evidence(bench, choice, seen=True), evidence(bench, whole, seen=True)]
    without: dict[str, Arm] = {}  # each line's own arm without a future
    for gamma in GAMMAS[:: 2 if quick else 1]:
        for line, reads in ((CHOICE, {}), (HEADED, HEAD)):
            taught = with_settings(bench, value={**reads, "gamma": gamma})
            one = arm(taught, "visvm:stop=vote", f"{line}@{gamma:g}", gamma)
            pairs = [choice, without.setdefault(line, one)]
            found.append(evidence(taught, one, pairs, like=choice, facts=value_facts(taught)))
        taught = with_settings(bench, value={"gamma": gamma})
        one = arm(taught, "visvm:stop=value", f"{WHOLE}@{gamma:g}", gamma)
        found.append(evidence(taught, one, [whole], seen=True))
    return found


def answer(found: Findings) -> str:
    """Whether gamma 0 is CLIP-PRM, whether more is better, and what V does when it says when to stop."""
    return f"{_reproduced(found)} {_chosen(found)} {_stopped(found)}"


def _reproduced(found: Findings) -> str:
    said = []
    for line in (CHOICE, HEADED):
        zero = f"{line}@0"
        said.append(
            f"{found.said(zero, 'spearman')} with the held-out rewards, {found.said(zero, 'first_agreement')} of the captions "
            f"open as CLIP-PRM's, {found.said(zero, 'pair_agreement')} of two first candidates in the same order"
        )
    return (
        f"Without a future (gamma = 0) V is a regression of the next sentence's reward. Its rank correlation is {said[0]} "
        f"(chance: 50); as a head on the policy's states {said[1]}."
    )


def _chosen(found: Findings) -> str:
    parts = []
    for line in (CHOICE, HEADED):
        steps = [f"gamma = {found.x[one]:g} {found.compared(one, PRM_CHOICE, 'chair_i')}" for one in found.line(line)]
        future = [one for one in found.line(line) if found.surely(one, f"{line}@0", "chair_i") == "better"]
        said = listed([f"{found.x[one]:g}" for one in future])
        verdict = (
            f"a future is surely better than none at gamma = {said}"
            if future
            else "no future is surely better than none"
        )
        parts.append(f"{line}: {'; '.join(steps)}; {verdict}")
    own = found.said(PRM_CHOICE, "chair_i")
    return f"Where only choices differ, CHAIRi against CLIP-PRM's {own}: {'. '.join(parts)}."


def _stopped(found: Findings) -> str:
    steps = [f"gamma = {found.x[one]:g} {found.compared(one, PRM_WHOLE, 'recall')}" for one in found.line(WHOLE)]
    return f"Where V also says when to stop, Recall against CLIP-PRM's {found.said(PRM_WHOLE, 'recall')}: {'; '.join(steps)}."


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_i", "recall", "length", "pair_agreement", "first_agreement", "spearman", "spread", "tokens"),
    plot=Plot("lines", ("chair_i", "recall", "spearman"), x="discount gamma"),
    method="Choice alone: stop by vote, which asks neither V nor the scorer, so that nothing but the choices differs. "
    "Choice and stop: V stops where its best guide is under 0, CLIP-PRM where no candidate reaches the margin; "
    "with gamma = 0 and rewards shaped by the margin these are the same rule. Under the default (stop: reward) both "
    "only choose among sentences that reach the margin, and V hardly shows.",
)
