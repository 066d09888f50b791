"""The target of V: a bootstrapped return or the whole return; and the scorer in place of V."""

from __future__ import annotations

import logging
from typing import Any

from flows.experiments.bench import HEAD, VOTE, Arm, arm, evidence, prepare_bench, value_facts, with_settings
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from tasks.analysis.findings import Evidence, Findings
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
    """Whether bootstrapping helps, whether the value after the end matters, and what the released targets learn."""
    return " ".join(filter(None, (_targets(findings), _ends(findings), _released(findings), _scorer(findings))))


def _targets(findings: Findings) -> str:
    rivals = [name for name in ("whole return, mean to go", "TD(lambda), mean to go") if name in findings.arms]
    changes = [
        f"{name} {findings.compared(name, TD, 'chair_i')}, rank {findings.text(name, 'rank_within')}" for name in rivals
    ]
    return (
        f"{TD} gives a CHAIRi of {findings.text(TD, 'chair_i')} and ranks held-out sentences by their return with "
        f"{findings.text(TD, 'rank_within')}. Against it: {'; '.join(changes)}."
    )


def _ends(findings: Findings) -> str:
    rivals = [name for name in ("TD(0), zero after the end", "TD(0), no end") if name in findings.arms]
    if not rivals:
        return ""
    changes = [
        f"{name} CHAIRi {findings.compared(name, TD, 'chair_i')}, length {findings.compared(name, TD, 'length')}"
        for name in rivals
    ]
    return f"What follows the last sentence: {'; '.join(changes)}."


def _released(findings: Findings) -> str:
    sentences = []
    for name in (name for name in findings.arms if name.startswith(RELEASED)):
        if findings.value(name, "refused"):
            sentences.append(f"{name}: refused, for its loss grew beyond that of a constant")
        else:
            sentences.append(
                f"{name}: a spread of {findings.text(name, 'spread')}, a rank correlation of "
                f"{findings.text(name, 'rank_within')}, CHAIRi {findings.compared(name, TD, 'chair_i')}"
            )
    return f"V trained as the released code does: {'; '.join(sentences)}." if sentences else ""


def _scorer(findings: Findings) -> str:
    return (
        f"The scorer itself in place of V ({PRM}): {findings.text(PRM, 'chair_i')}, against {TD} "
        f"{findings.compared(PRM, TD, 'chair_i')}."
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
