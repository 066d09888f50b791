"""The papers' comparison, at equal measured work: as many candidates as fit into the tokens that VisVM decodes."""

from __future__ import annotations

from flows.experiments.bench import arm, evidence, prepare_bench, tokens_of, wide, within
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, line_of, listed
from tasks.report.experiment_figures import Plot

RIVALS = ("best_of_n", "clip_prm", "vimar", "vimar:by=score")


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Greedy, VisVM as the profile has it, and every rival at as many candidates as its tokens allow."""
    bench = prepare_bench(profile, ["visvm", *RIVALS])
    greedy, own = arm(bench, "greedy"), wide(bench, "visvm", profile.search.candidates)
    budget = tokens_of(bench, own)
    most = profile.search.candidates + 2
    rivals = [within(bench, spec, range(max(1, most - 5), most + 1), budget) for spec in RIVALS[: 2 if quick else None]]
    return [
        evidence(bench, greedy),
        evidence(bench, own, [greedy], seen=True),
        *(evidence(bench, one, [greedy, own], seen=True) for one in rivals),
    ]


def answer(found: Findings) -> str:
    """Who is best, and who differs from VisVM."""
    own = next(one for one in found.arms if line_of(one) == "visvm")
    rivals = [one for one in found.arms if one not in ("greedy", own)]
    best = found.best("chair_i")
    better = [one for one in rivals if found.surely(one, own, "chair_i") == "better"]
    worse = [one for one in rivals if found.surely(one, own, "chair_i") == "worse"]
    level = [one for one in rivals if one not in better and one not in worse]
    verdicts = []
    for word, some in (("surely better", better), ("surely worse", worse), ("not to be told apart from it", level)):
        if some:
            said = [f"{one} with {found.said(one, 'chair_i')}{over(found, one, own)}" for one in some]
            verdicts.append(f"{word}: {listed(said)}")
    return (
        f"Within the {found.said(own, 'tokens')} a caption that {own} decodes, the lowest CHAIRi has {best}: "
        f"{found.said(best, 'chair_i')}; greedy captions have {found.said('greedy', 'chair_i')}. Of the rivals, measured "
        f"against {own} ({found.said(own, 'chair_i')}): {'; '.join(verdicts)}. {recall(found, own)}"
    )


def over(found: Findings, one: str, own: str) -> str:
    """Says so where even the fewest candidates took more tokens than the budget."""
    return " (over the budget)" if found.value(one, "tokens") > found.value(own, "tokens") else ""


def recall(found: Findings, own: str) -> str:
    """What it cost in recall."""
    lost = [one for one in found.arms if one != "greedy" and found.surely(one, "greedy", "recall") == "worse"]
    if not lost:
        return "None of them surely recalls less than greedy."
    said = [f"{one} {found.compared(one, 'greedy', 'recall')}" for one in lost]
    return f"Recall against greedy: {'; '.join(said)}" + ("." if own in lost else f"; {own} loses none that is sure.")


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "tokens", "ms", "texts_scored", "value_tokens"),
    plot=Plot("arms", ("chair_i", "recall", "length")),
    method="All search the same images under the same prompts with the base policy, guided by the first round's "
    "rewards and V. @K: candidates; each rival has the most that take no more decoded tokens than VisVM at the "
    "profile's own number, or the fewest tried.",
)
