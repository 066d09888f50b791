"""Self-training of policies of other architectures, each on captions that a search with its own guide wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flows.experiments.bench import first_round
from flows.experiments.contract import Experiment
from flows.experiments.cross_model import other_policies
from flows.experiments.self_train import OWN, SEARCHED, trained_as
from flows.experiments.trained import BASE, evidence_of, on_drawn_scenes, supervised
from flows.profiles.loading import Profile, ProfileError, locate
from flows.profiles.varied import UNCHECKED_VALUE, varied
from flows.round.measure import measure
from flows.round.prepare import prepare_loop
from tasks.analysis.findings import Evidence, Findings, figure
from tasks.configs.search import search_config
from tasks.demo.built import models_of
from tasks.report.experiment_figures import Plot
from tasks.search.search import search_needs

MOST = 10  # policies
BUILD = "python -m flows.pretrain_third"


def built_policy(seed: int) -> Path:
    """Where the demo's third policy of a seed is in the store, once it is built."""
    return models_of(seed) / "policy-third"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The demo's third policy."""
    return run_with(profile, quick, ())


def run_with(profile: Profile, quick: bool, given: Sequence[str]) -> list[Evidence]:
    """Each policy before training, trained on searched captions, and on its own greedy ones.

    Raises:
        ProfileError: no other policy is known.
    """
    results: list[Evidence] = []
    names: set[str] = set()
    for other in third_policies(profile, given):
        name = Path(other.policy.checkpoint).name
        name = name if name not in names else f"{name} ({len(names) + 1})"
        names.add(name)
        results += self_trained(other, name, quick)
    return results


def third_policies(profile: Profile, given: Sequence[str]) -> list[Profile]:
    """The profile with each other policy: those of the profiles given by --with, or the demo's third if it is built.

    Raises:
        ProfileError: none is given and the demo's third is not built, or the profile is not the demo's.
    """
    if given or not on_drawn_scenes(profile):
        return other_policies(profile, given, MOST)
    built = next(
        (path for path in (built_policy(profile.seed), built_policy(0)) if (path / "config.json").is_file()), None
    )
    if built is None or locate(str(built)) == locate(profile.policy.checkpoint):
        raise ProfileError(
            f"the demo's third policy is not in the store ({built_policy(profile.seed)}); build it with {BUILD} --seed "
            f"{profile.seed}, or name a profile that has another policy: --with PROFILE"
        )
    return [varied(profile, policy={"checkpoint": str(built)})]


def self_trained(profile: Profile, name: str, quick: bool) -> list[Evidence]:
    """The evidence of one policy; the health check of V is off, because what a V of another family does is the question."""
    profile = varied(supervised(profile), drift={"questions": 0}, value=UNCHECKED_VALUE)
    context = prepare_loop(profile)
    base = measure(context, f"{name}: {BASE}", context.base)
    specs = {SEARCHED: profile.search.strategy, OWN: "greedy"}
    searches = {arm: search_config(profile.search, spec) for arm, spec in specs.items()}
    needs = frozenset[str]().union(*(search_needs(config) for config in searches.values()))
    drawn, guide = first_round(context, needs)
    models = [
        trained_as(
            replace(context, profile=profile.model_copy(update={"search": searches[arm]})),
            f"{name}: {arm}",
            guide,
            drawn,
        )
        for arm in list(searches)[: 1 if quick else None]
    ]
    results = [evidence_of(context, base, [], drift=False)]
    for model in models:
        others = [other for other in models[1:] if other is not model]
        results.append(evidence_of(context, model, [base, *others] if model is models[0] else [base]))
    return results


def answer(findings: Findings) -> str:
    """Whether searched captions help each policy, beyond training on its own captions."""
    names = list(dict.fromkeys(arm.partition(": ")[0] for arm in findings.arms))
    gains, beyond, kept = [], [], []
    for name in names:
        base, searched, own = (f"{name}: {arm}" for arm in (BASE, SEARCHED, OWN))
        gains.append(f"{name} from {figure(findings, base, 'chair_i')} to {figure(findings, searched, 'chair_i')}")
        kept.append(f"{name} {findings.compared(searched, base, 'recall')}")
        if own in findings.arms:
            beyond.append(f"{name} {findings.compared(searched, own, 'chair_i')}")
    control = f" Against training on its own greedy captions, CHAIRi is, for {'; '.join(beyond)}." if beyond else ""
    return (
        f"Trained on searched captions, CHAIRi goes, for {'; '.join(gains)}.{control} Recall is, for {'; '.join(kept)}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=("chair_s", "chair_i", "recall", "length", "ngram_drift", "vocabulary_kept", "repetition"),
    plot=Plot("arms", ("chair_i", "recall", "length")),
    method="Each policy is rewarded, gets a V on its own rollouts, and is trained on the captions of its own guided search, "
    "or on its own greedy ones; all are measured by greedy captions of the benchmark. The policies are those of the "
    f"profiles that --with names; on the demo one of Qwen2-VL's architecture, which {BUILD} builds.",
    run_with=run_with,
)
