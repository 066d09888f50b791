"""What V is regressed on: a bootstrapped target, the whole return, or nothing at all (the scorer in its place)."""

from __future__ import annotations

from typing import Any

from flows.experiments.bench import HEAD, arm, evidence, lay_bench, value_facts, with_settings
from flows.experiments.contract import Experiment
from flows.profiles import Profile
from tasks.findings import Evidence, Findings, Plot

TD, PRM = "TD(0), mean to go", "CLIP-PRM"
ARMS: dict[str, dict[str, Any]] = {
    TD: {"target": "td0", "terminal": "mean_to_go"},
    "whole return, mean to go": {"target": "mc", "terminal": "mean_to_go"},
    "TD(lambda), mean to go": {"target": "td_lambda", "terminal": "mean_to_go"},
    "TD(0), zero after the end": {"target": "td0", "terminal": "zero_terminal"},
    "whole return, zero after the end": {"target": "mc", "terminal": "zero_terminal"},
    "TD(0), no end": {"target": "td0", "terminal": "bootstrap_forever"},
    "as released (whole batch's rewards, no end)": {
        "target": "td0",
        "terminal": "bootstrap_forever",
        "published": True,
    },
}
QUICK = (TD, "whole return, mean to go")


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """Every V on the same answers; each guides the same search, which stops by vote."""
    bench = lay_bench(profile, ["clip_prm"])
    taught = {
        name: with_settings(bench, value={**HEAD, **settings})
        for name, settings in ARMS.items()
        if not quick or name in QUICK
    }
    arms = {name: arm(one, "visvm:stop=vote", name) for name, one in taught.items()}
    prm = arm(bench, "clip_prm:stop=vote", PRM)
    found = [
        evidence(one, arms[name], [arms[TD], prm], seen=True, facts=value_facts(one)) for name, one in taught.items()
    ]
    return [*found, evidence(bench, prm, [arms[TD]], seen=True)]


def answer(found: Findings) -> str:
    """Whether bootstrapping helps, what the end is worth, and what the released targets learn."""
    return " ".join(filter(None, (_targets(found), _ends(found), _released(found), _scorer(found))))


def _targets(found: Findings) -> str:
    rivals = [name for name in ("whole return, mean to go", "TD(lambda), mean to go") if name in found.arms]
    said = [f"{name} {found.compared(name, TD, 'chair_i')}, rank {found.said(name, 'spearman')}" for name in rivals]
    return (
        f"{TD} gives a CHAIRi of {found.said(TD, 'chair_i')} and ranks held-out sentences by their return with "
        f"{found.said(TD, 'spearman')}. Against it: {'; '.join(said)}."
    )


def _ends(found: Findings) -> str:
    rivals = [name for name in ("TD(0), zero after the end", "TD(0), no end") if name in found.arms]
    if not rivals:
        return ""
    said = [
        f"{name} CHAIRi {found.compared(name, TD, 'chair_i')}, length {found.compared(name, TD, 'length')}"
        for name in rivals
    ]
    return f"What follows the last sentence: {'; '.join(said)}."


def _released(found: Findings) -> str:
    name = next((arm for arm in found.arms if arm.startswith("as released")), "")
    if not name:
        return ""
    return (
        f"Trained as the released code does, V has a spread of {found.said(name, 'spread')} and a rank correlation of "
        f"{found.said(name, 'spearman')}; CHAIRi {found.compared(name, TD, 'chair_i')}."
    )


def _scorer(found: Findings) -> str:
    return (
        f"The scorer itself in place of V ({PRM}): {found.said(PRM, 'chair_i')}, against {TD} "
        f"{found.compared(PRM, TD, 'chair_i')}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_i", "recall", "length", "spearman", "spread", "step_spread", "ties", "wrong_chosen"),
    plot=Plot("arms", ("chair_i", "recall", "spearman")),
    method="V is a head on the policy's states, learned on the first round's answers; all searches stop by vote, so "
    "that only what V chooses differs. Rank: with the held-out return of the same end, so ranks of different "
    "ends are of different returns. As released: rewards [B] against values [B, 1], so every value is regressed "
    "on the whole batch's rewards.",
)
