"""Transfer of V between policies: each policy is searched under its own V, under the other's, and without V."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flows.experiments.bench import ACTION, VOTE, Arm, Bench, arm, evidence, guided, prepare_bench
from flows.experiments.contract import Experiment
from flows.experiments.trained import DEMO, on_drawn_scenes
from flows.profiles.loading import Profile, ProfileError, load_profile, locate
from flows.profiles.varied import UNCHECKED_VALUE, varied
from storage.artifacts import Table
from storage.schema import Metric
from tasks.analysis.excerpts import excerpt
from tasks.analysis.findings import Evidence, Findings, figure
from tasks.analysis.observe import appraise
from tasks.report.experiment_figures import Plot

# A network of its own: a head on a policy's hidden states cannot read another policy's.
READS = {"reads": "image_and_text", "lr": 3e-4, "epochs": 2}
CHOICE = ", choice alone"
NEEDS = frozenset({"value", "scorer", "margin"})


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The profile's policy and the demo's other one."""
    return run_with(profile, quick, ())


def run_with(profile: Profile, quick: bool, given: Sequence[str]) -> list[Evidence]:
    """Both policies, each searched without V, under its own, and under the other's.

    Raises:
        ProfileError: no second policy is known, or it is the profile's own.
    """
    benches = fit_benches(profile, other_policies(profile, given, most=1))
    results = []
    for name, bench in benches.items():
        without = arm(bench, "greedy", f"{name}: greedy"), arm(bench, f"clip_prm:{ACTION}", f"{name}: CLIP-PRM")
        results += [evidence(bench, searched) for searched in without]
        if not quick:
            results.append(evidence(bench, arm(bench, "sample", f"{name}: sampled")))
        sources = {name: bench} | benches  # its own V first, as the reference of the other
        for end, suffix in ((ACTION, ""), (VOTE, CHOICE))[: 1 if quick else 2]:
            own: list[Arm] = []
            for source, other in sources.items():
                guided_by = replace(bench, guide=other.guide)
                searched = arm(guided_by, f"visvm:{end}", f"{name}: V of {source}{suffix}")
                measured = evidence(bench, searched, [*own, without[0]], with_trace=True)
                own.append(searched)
                results.append(replace(measured, metrics=(*measured.metrics, value_auc(bench, searched))))
    return results


def other_policies(profile: Profile, given: Sequence[str], most: int) -> list[Profile]:
    """The profile with other policies: those of the given profiles, or the demo's second policy.

    Raises:
        ProfileError: none is known, too many are given, or one is the profile's own.
    """
    if not given and not on_drawn_scenes(profile):
        raise ProfileError(
            f"profile {profile.name}: which other policy? Name a profile that has it: --with PROFILE; demo's "
            "policies know nothing but the demo's scenes"
        )
    if len(given) > most:
        raise ProfileError(f"{len(given)} profiles are given with --with, at most {most} can be used")
    own = locate(profile.policy.checkpoint)
    names = list(given) or [DEMO if own != locate(load_profile(DEMO).policy.checkpoint) else "demo"]
    others = [profile.model_copy(update={"policy": load_profile(name).policy}) for name in names]
    for name, other in zip(names, others, strict=True):
        if locate(other.policy.checkpoint) == own:
            raise ProfileError(f"profile {name} has the same policy, {other.policy.checkpoint}; name another by --with")
    return others


def fit_benches(profile: Profile, others: Sequence[Profile]) -> dict[str, Bench]:
    """Each policy's bench, with a V trained on that policy's rollouts, by the policy's name; the profile's own first."""
    reads = profile.value.reads == "image_and_text"
    own = profile if reads else varied(profile, value={**READS, **UNCHECKED_VALUE})
    benches: dict[str, Bench] = {}
    settings = {**own.value.model_dump(), **UNCHECKED_VALUE}
    for policy_profile in (own, *(varied(other, value=settings) for other in others)):
        benches[named(policy_profile, benches)] = guided(prepare_bench(policy_profile), NEEDS)
    return benches


def named(profile: Profile, taken: dict[str, Bench]) -> str:
    """A policy's name: the last part of its checkpoint, with a number if another policy has the same."""
    name = Path(profile.policy.checkpoint).name
    return name if name not in taken else f"{name} ({len(taken) + 1})"


def value_auc(bench: Bench, searched: Arm) -> Table[Metric]:
    """How well V ranks this policy's true sentences above its hallucinated ones: the metric `auc`."""
    appraised = appraise.with_label(searched.name)(
        bench.profile.evaluate,
        searched.result.search_trace,
        bench.context.benchmark.samples,
        bench.context.annotations,
        subject="base",
        decoding=searched.name,
    )
    return excerpt.with_label(searched.name)(appraised.metrics, ["auc"]).excerpt


def answer(findings: Findings) -> str:
    """What a policy loses with the other's V instead of its own, and whether that V is better than none."""
    policies = list(dict.fromkeys(arm.partition(": ")[0] for arm in findings.arms))
    return " ".join(_of_policy(findings, name, next(other for other in policies if other != name)) for name in policies)


def _of_policy(findings: Findings, name: str, other: str) -> str:
    greedy, own, foreign = f"{name}: greedy", f"{name}: V of {name}", f"{name}: V of {other}"
    return (
        f"{name}: greedy CHAIRi {figure(findings, greedy, 'chair_i')}, under its own V "
        f"{figure(findings, own, 'chair_i')}, under the V of {other} {figure(findings, foreign, 'chair_i')} (from own to "
        f"foreign {findings.compared(foreign, own, 'chair_i')}; Recall {findings.compared(foreign, own, 'recall')})."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "auc", "tokens", "ms"),
    plot=Plot("arms", ("chair_i", "recall", "auc")),
    method="Each V is a network of its own on its policy's weights, trained on that policy's rewarded rollouts of the "
    "same images; it reads image and sentence, so any policy's candidates. V chooses, and where the policy proposes to end "
    "it does if no value is above 0; choice alone: end by vote. AUC: V on the guided policy's candidate sentences, within "
    "an image. The second policy is that of the profile that --with names; on the demo, of demo-cot: another tokenizer and "
    "training, about the same size.",
    run_with=run_with,
)
