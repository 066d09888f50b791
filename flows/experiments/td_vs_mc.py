"""The target of V: a bootstrapped return or the whole return; and the scorer in place of V."""

from __future__ import annotations

import logging
from typing import Any

from flows.experiments.bench import HEAD, VOTE, Arm, arm, evidence, prepare_bench, value_facts, with_settings
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings, figure, verdicts
from tasks.report.experiment_figures import Plot
from tasks.value.held_out import ValueCollapsed

log = logging.getLogger(__name__)

TD, PRM, RELEASED = "TD(0), mean to go", "CLIP-PRM", "as released"
ARMS: dict[str, dict[str, Any]] = {
    TD: {"target": "td0", "terminal": "mean_to_go"},
    "whole return, mean to go": {"target": "mc", "terminal": "mean_to_go"},
    "TD(lambda), mean to go": {"target": "td_lambda", "terminal": "mean_to_go"},
    "TD(0), zero after the end": {"target": "td0", "terminal": "zero_terminal"},
    "whole return, zero after the end": {"target": "mc", "terminal": "zero_terminal"},
    "TD(0), no end": {"target": "td0", "terminal": "bootstrap_forever"},
    RELEASED: {"published": True},
    f"{RELEASED}, a tenth of the learning rate": {"published": True, "lr": 1e-4},
}
QUICK = (TD, "whole return, mean to go")


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Every V is trained on the same rollouts and guides the same search, which ends by vote."""
    bench = prepare_bench(profile, ["clip_prm"])
    prm = arm(bench, f"clip_prm:{VOTE}", PRM)
    results: list[Evidence] = []
    reference: Arm | None = None
    for name in QUICK if quick else ARMS:
        try:
            variant = with_settings(bench, value={**HEAD, **ARMS[name]})
        except ValueCollapsed as error:  # a result, too
            log.warning("%s: %s", name, error)
            results.append(Evidence(name, facts={"refused": 1.0}))
            continue
        measured = arm(variant, f"visvm:{VOTE}", name)
        reference = reference or measured
        results.append(
            evidence(
                variant, measured, [reference, prm], with_trace=True, facts={**value_facts(variant), "refused": 0.0}
            )
        )
    return [*results, evidence(bench, prm, [reference] if reference else [], with_trace=True)]


def answer(findings: Findings) -> str:
    """Whether another target is better, what the released targets learn, and whether V is better than the scorer."""
    rivals = [name for name in findings.arms if name not in (TD, PRM) and not name.startswith(RELEASED)]
    released = [
        "is refused, because its loss grew"
        if findings.value(name, "refused")
        else f"has a rank correlation of {figure(findings, name, 'rank_within')}"
        for name in (RELEASED,)
        if name in findings.arms
    ]
    return (
        f"{TD} has a CHAIRi of {figure(findings, TD, 'chair_i')} and a rank correlation of "
        f"{figure(findings, TD, 'rank_within')}; other targets are {verdicts(findings, rivals, TD)}. "
        + (f"V trained as the released code does {released[0]}. " if released else "")
        + f"The scorer in place of V: CHAIRi {findings.compared(PRM, TD, 'chair_i')}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_i", "recall", "length", "refused", "rank_within", "spread", "step_spread", "wrong_chosen"),
    plot=Plot("arms", ("chair_i", "recall", "rank_within")),
    method="V is a head on the policy's states, trained on the first round's rollouts; all searches end by vote, so "
    "that only V's choices differ. Rank: with the held-out return of the same end, so ranks of different "
    "ends are of different returns. As released: rewards [B] against values [B, 1], so every value is regressed "
    "on the whole batch's rewards.",
)
