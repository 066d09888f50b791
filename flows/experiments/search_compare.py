"""The papers' comparison at equal measured work: each rival has as many candidates as VisVM's decoded tokens allow."""

from __future__ import annotations

from flows.experiments.bench import arm, arm_at_width, evidence, prepare_bench, tokens_of, widest_within
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, line_of, listed
from tasks.report.experiment_figures import Plot

RIVALS = ("best_of_n", "clip_prm", "vimar", "vimar:by=score")


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Greedy, VisVM at the profile's candidates, and every rival at as many candidates as VisVM's tokens allow."""
    bench = prepare_bench(profile, ["visvm", *RIVALS])
    greedy, own = arm(bench, "greedy"), arm_at_width(bench, "visvm", profile.search.candidates)
    budget = tokens_of(own)
    most = profile.search.candidates + 2
    rivals = [
        widest_within(bench, spec, range(max(1, most - 5), most + 1), budget) for spec in RIVALS[: 2 if quick else None]
    ]
    return [
        evidence(bench, greedy),
        evidence(bench, own, [greedy], with_trace=True),
        *(evidence(bench, measured, [greedy, own], with_trace=True) for measured in rivals),
    ]


def answer(findings: Findings) -> str:
    """Which search is best, and which surely differ from VisVM."""
    own = next(arm for arm in findings.arms if line_of(arm) == "visvm")
    rivals = [arm for arm in findings.arms if arm not in ("greedy", own)]
    best = findings.best("chair_i")
    better = [arm for arm in rivals if findings.surely(arm, own, "chair_i") == "better"]
    worse = [arm for arm in rivals if findings.surely(arm, own, "chair_i") == "worse"]
    level = [arm for arm in rivals if arm not in better and arm not in worse]
    verdicts = []
    for conclusion, names in (
        ("surely better", better),
        ("surely worse", worse),
        ("not to be told apart from it", level),
    ):
        if names:
            reached = [f"{arm} with {findings.text(arm, 'chair_i')}{over_budget(findings, arm, own)}" for arm in names]
            verdicts.append(f"{conclusion}: {listed(reached)}")
    return (
        f"Within the {findings.text(own, 'tokens')} a caption that {own} decodes, the lowest CHAIRi has {best}: "
        f"{findings.text(best, 'chair_i')}; greedy captions have {findings.text('greedy', 'chair_i')}. Of the "
        f"rivals, measured against {own} ({findings.text(own, 'chair_i')}): {'; '.join(verdicts)}. "
        f"{recall_sentence(findings, own)}"
    )


def over_budget(findings: Findings, arm: str, own: str) -> str:
    """A remark if even the fewest candidates took more tokens than the budget."""
    return " (over the budget)" if findings.value(arm, "tokens") > findings.value(own, "tokens") else ""


def recall_sentence(findings: Findings, own: str) -> str:
    """Which searches surely lose recall against greedy."""
    lost = [arm for arm in findings.arms if arm != "greedy" and findings.surely(arm, "greedy", "recall") == "worse"]
    if not lost:
        return "None of them surely recalls less than greedy."
    losses = [f"{arm} {findings.compared(arm, 'greedy', 'recall')}" for arm in lost]
    return f"Recall against greedy: {'; '.join(losses)}" + ("." if own in lost else f"; {own} loses none that is sure.")


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "tokens", "ms", "texts_scored", "value_tokens"),
    plot=Plot("arms", ("chair_i", "recall", "length")),
    method="All search the same images under the same prompts with the base policy, guided by the first round's "
    "rewards and V. @K: candidates; each rival has the most that take no more decoded tokens than VisVM at the "
    "profile's own number, or the fewest tried.",
)
