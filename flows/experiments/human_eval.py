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
from tasks.analysis.excerpts import ratings
from tasks.analysis.findings import Evidence, Findings
from tasks.analysis.sheets import open_ratings, score_sheets, sheets
from tasks.report.experiment_figures import Plot
from tasks.report.sheets import write_sheets
from tasks.stage.calls import current_run
from tasks.stage.plan import current_plan

GREEDY, SEARCHED, VERDICT = "greedy", "searched", "searched, by people"
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
    """The win rate, or, without ratings, what to send to raters."""
    rivals = (
        f"The sheets hold {findings.text(SEARCHED, 'pairs')} of greedy and searched captions of the same images "
        f"({findings.text(SEARCHED, 'identical')} of them equal). By CHAIRi searched ones have "
        f"{findings.text(SEARCHED, 'chair_i')}, {findings.compared(SEARCHED, GREEDY, 'chair_i')} against greedy."
    )
    if VERDICT not in findings.arms:
        return (
            f"{rivals} They are in the run's folder, under {FOLDER}: send sheet.html, or ratings.csv, to raters, "
            "then run this again with --with FILE for each file that comes back."
        )
    win, loss = findings.cell(VERDICT, "win_rate"), findings.cell(VERDICT, "loss_rate")
    sure = ""
    if win is not None and loss is not None:
        sure = " Surely more are called better than worse." if win.low > loss.high else ""
        sure = " Surely more are called worse than better." if loss.low > win.high else sure
    agreed = [f"{name.replace('_', ' ')} {findings.text(VERDICT, name)}" for name in ("cohen_kappa", "krippendorff_alpha")
              if findings.has(VERDICT, name)]  # fmt: skip
    return (
        f"People call the searched caption better in {findings.text(VERDICT, 'win_rate')} of "
        f"{findings.text(VERDICT, 'ratings')}, equal in {findings.text(VERDICT, 'tie_rate')}, worse in "
        f"{findings.text(VERDICT, 'loss_rate')}.{sure} The right side is chosen in "
        f"{findings.text(VERDICT, 'right_rate')} of the verdicts for a side (50 without bias); "
        f"{findings.text(VERDICT, 'missing')} have no "
        f"rating{f'; agreement of raters: {agreed[0]}' if agreed else ''}. {rivals}"
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("win_rate", "tie_rate", "loss_rate", "right_rate", "missing", "cohen_kappa", "krippendorff_alpha",
             "ratings", "pairs", "identical", "chair_i", "recall", "length"),
    plot=Plot("arms", ("win_rate", "loss_rate", "chair_i", "recall")),
    method="Blinded: random pairs, sides by seed, ties count against (VisVM's protocol); see docs/human-eval.md. The "
    "key stays in the store. @I: the I-th rater by name. Files given with --with must belong to this "
    "sheet: the same profile, seed and number of images.",
    run_with=run_with,
)  # fmt: skip
