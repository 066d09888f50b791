"""Policies of several sizes under one fixed V, the first policy's: does its effect shrink as policies grow?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flows.experiments.bench import ACTION, Bench, arm, evidence, guided, prepare_bench
from flows.experiments.contract import Experiment
from flows.experiments.cross_model import NEEDS, READS, named, other_policies
from flows.profiles.loading import Profile
from flows.profiles.varied import UNCHECKED_VALUE, varied
from tasks.analysis.findings import Evidence, Findings, listed
from tasks.analysis.sizes import size_of
from tasks.report.experiment_figures import Plot

MOST = 20  # policies
LADDER = 2.0  # the least ratio of largest to smallest that says anything about scale
GREEDY, PRM = "greedy", "CLIP-PRM"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The profile's policy and the demo's other one."""
    return run_with(profile, quick, ())


def run_with(profile: Profile, quick: bool, given: Sequence[str]) -> list[Evidence]:
    """Each policy searched greedily, by CLIP-PRM with its own margin, and under the first policy's V."""
    if profile.value.reads != "image_and_text":
        profile = varied(profile, value={**READS, **UNCHECKED_VALUE})
    first = guided(prepare_bench(profile), NEEDS)
    benches: dict[str, Bench] = {named(profile, {}): first}
    for other in other_policies(profile, given, MOST):
        benches[named(other, benches)] = guided(prepare_bench(other), frozenset({"scorer", "margin"}))
    results = []
    for name, bench in benches.items():
        size = size_of.with_label(name)(bench.context.base.checkpoint).parameters
        greedy = arm(bench, "greedy", f"{name}: {GREEDY}")
        owner = next(iter(benches))
        arms = [greedy, arm(replace(bench, guide=first.guide), f"visvm:{ACTION}", f"{name}: V of {owner}")]
        if not quick:
            arms.append(arm(bench, f"clip_prm:{ACTION}", f"{name}: {PRM}"))
        results += [evidence(bench, measured, [greedy], facts={"parameters": size}) for measured in arms]
    return results


def answer(findings: Findings) -> str:
    """The effect of the first policy's V at every size, and whether the sizes differ enough to judge scale."""
    names = [arm.removesuffix(f": {GREEDY}") for arm in findings.arms if arm.endswith(f": {GREEDY}")]
    names.sort(key=lambda name: findings.value(f"{name}: {GREEDY}", "parameters"))
    steps, helped = [], []
    for name in names:
        greedy, fixed, _ = _arms(findings, name)
        steps.append(f"{name} {findings.compared(fixed, greedy, 'chair_i')}")
        helped += [name] if findings.surely(fixed, greedy, "chair_i") == "better" else []
    sizes = [findings.value(f"{name}: {GREEDY}", "parameters") for name in names]
    ladder = (
        f"From the smallest to the largest, parameters grow {max(sizes) / min(sizes):.1f}-fold."
        if max(sizes) >= LADDER * min(sizes)
        else "There is no ladder: these policies are of one size, so this says nothing of scale; name larger ones by --with."
    )
    return (
        f"Under one fixed V, CHAIRi against greedy is, from the smallest policy up: {'; '.join(steps)}. That surely helps "
        f"{len(helped)} of {len(names)} policies{f' ({listed(helped)})' if helped else ''}. {ladder}"
    )


def _arms(findings: Findings, name: str) -> tuple[str, str, str]:
    """(greedy, under V, under CLIP-PRM): the names of a policy's arms; the last is empty if it was left out."""
    fixed = next(arm for arm in findings.arms if arm.startswith(f"{name}: V of "))
    prm = f"{name}: {PRM}"
    return f"{name}: {GREEDY}", fixed, prm if prm in findings.arms else ""


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("parameters", "chair_s", "chair_i", "recall", "length", "tokens", "ms"),
    plot=Plot("arms", ("chair_i", "recall", "length")),
    method="V is a network of its own on the profile's policy, trained on that policy's rewarded rollouts, and guides "
    "every policy: it chooses and stops where its best value is under 0. CLIP-PRM has the margin of each "
    "policy's own answers. The ladder is the profile's policy and those of the profiles that --with names; on "
    "the demo that of demo-cot, which is no larger, so the shipped policies are no real ladder.",
    run_with=run_with,
)
