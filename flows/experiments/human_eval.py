"""Human evaluation: blinded sheets of the base's greedy captions against the profile's search; with ratings, a win rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.experiments.bench import arm, differences, prepare_bench
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from storage import runs
from storage.artifacts import Table
from storage.schema import Image, SheetPair
from tasks.analysis.automatic_rater import rate_by_truth
from tasks.analysis.excerpts import ratings
from tasks.analysis.findings import Evidence, Findings, figure
from tasks.analysis.sheets import open_ratings, score_sheets, sheets
from tasks.report.experiment_figures import Plot
from tasks.report.sheets import write_sheets
from tasks.stage.calls import current_run
from tasks.stage.plan import current_plan

GREEDY, SEARCHED, VERDICT = "greedy", "searched", "searched, by people"
AUTOMATIC = "searched, by an automatic rater"  # CHAIR's truth in place of a person
PAIRS = 300  # as VisVM
FOLDER = "sheets"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Only the sheets."""
    return run_with(profile, quick, ())


def run_with(profile: Profile, quick: bool, given: Sequence[str]) -> list[Evidence]:
    """Greedy and searched captions, and the sheets, written into the run's folder; with raters' files, the ratings, too."""
    files = open_ratings([Path(path).expanduser() for path in given]) if given else []
    spec = profile.search.strategy
    bench = prepare_bench(profile, [spec])
    greedy, searched = arm(bench, GREEDY), arm(bench, spec, SEARCHED, config=profile.search)
    images, drawn = bench.context.benchmark.images, min(PAIRS, profile.evaluate.images)
    key = sheets(
        greedy.result.captions,
        searched.result.captions,
        images,
        name_a=GREEDY,
        name_b=SEARCHED,
        pairs=drawn,
        seed=profile.seed,
    )
    export(key.sheet_pairs, images)
    pairs = {GREEDY: differences(bench, searched, greedy)}
    identical = key.counters["identical"] / drawn if current_plan() is None else None
    results = [
        Evidence(GREEDY, None, (greedy.scores.metrics,)),
        Evidence(SEARCHED, None, (searched.scores.metrics,), pairs, facts={"pairs": drawn, "identical": identical}),
    ]
    automatic = rate_by_truth(
        key.sheet_pairs,
        bench.context.annotations,
        files,
        subject=SEARCHED,
        bootstrap=profile.evaluate.bootstrap,
        confidence=profile.evaluate.confidence,
    )
    results.append(Evidence(AUTOMATIC, None, (automatic.metrics,), facts={"pairs": drawn}))
    if files:
        scored = score_sheets(
            key.sheet_pairs,
            files,
            subject=SEARCHED,
            seed=profile.seed,
            bootstrap=profile.evaluate.bootstrap,
            confidence=profile.evaluate.confidence,
        )
        verdict = ratings(scored.findings, subject=SEARCHED)
        facts = {"ratings": scored.ratings, "pairs": drawn}
        results.append(Evidence(VERDICT, None, (verdict.metrics,), facts=facts))
    return results


def export(key: Table[SheetPair], images: Table[Image]) -> None:
    """Write the raters' files into the run's folder; does nothing in a plan or outside a run."""
    run = current_run()
    if run is not None and current_plan() is None:
        write_sheets(runs.run_folder(run[0]) / FOLDER, key, images)


def answer(findings: Findings) -> str:
    """The win rate of people or what a person has to do, and what an automatic rater says."""
    automatic = (
        f"An automatic rater (CHAIR's truth, no person) calls the searched caption better in "
        f"{figure(findings, AUTOMATIC, 'win_rate')} and worse in {figure(findings, AUTOMATIC, 'loss_rate')} of the pairs"
    )
    if VERDICT not in findings.arms:
        return (
            f"No person has rated yet: send sheet.html or ratings.csv, in the run's folder under {FOLDER}, to raters, then "
            f"run this again with --with FILE for each file that comes back. {automatic}. The sheet has "
            f"{figure(findings, SEARCHED, 'pairs')}; CHAIRi of searched captions is "
            f"{findings.compared(SEARCHED, GREEDY, 'chair_i')} against greedy."
        )
    net, kappa = findings.own_change(VERDICT, "net_rate"), findings.has(AUTOMATIC, "cohen_kappa")
    side = {1: "surely more often better than worse", -1: "surely more often worse than better"}
    sure = side.get(net.side if net else 0, "neither better nor worse for sure")
    agreement = f"; its Cohen's kappa with people is {figure(findings, AUTOMATIC, 'cohen_kappa')}" if kappa else ""
    return (
        f"People call the searched caption better in {findings.text(VERDICT, 'win_rate')} of "
        f"{figure(findings, VERDICT, 'ratings')} and worse in {findings.text(VERDICT, 'loss_rate')}: {sure}. "
        f"{automatic}{agreement}. CHAIRi of searched captions is {findings.compared(SEARCHED, GREEDY, 'chair_i')} against "
        "greedy."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("win_rate", "tie_rate", "loss_rate", "right_rate", "missing", "cohen_kappa", "krippendorff_alpha",
             "net_rate", "ratings", "pairs", "identical", "chair_i", "recall", "length"),
    plot=Plot("arms", ("win_rate", "loss_rate", "chair_i", "recall")),
    method="Blinded: random pairs, sides by seed, ties count against (VisVM's protocol); see docs/human-eval.md. The "
    "key stays in the store. The automatic rater is no person: it knows what is in an image, and prefers fewer "
    "hallucinated mentions, then more true objects; its Cohen's kappa is with people's majority. @I: the I-th rater by name. "
    "Files given with --with must belong to this "
    "sheet: the same profile, seed and number of images.",
    run_with=run_with,
)  # fmt: skip
