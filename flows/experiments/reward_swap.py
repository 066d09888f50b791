"""Other rewards: how similarly they rank sentences, how well they detect false ones, and what a search reaches with each."""

from __future__ import annotations

from dataclasses import replace

from flows.experiments.bench import Bench, arm, evidence, guided, prepare_bench, with_profile
from flows.experiments.contract import Experiment
from flows.profiles.loading import Profile
from flows.profiles.varied import varied
from storage.artifacts import Table
from storage.schema import Annotation, Sample
from tasks.analysis.findings import Evidence, Findings, each, figure, listed, verdicts
from tasks.analysis.judge_rewards import judge_rewards
from tasks.configs.data import FolderSource
from tasks.configs.reward import CosineReward, LikelihoodReward, ObjectsReward, Reward, TokenReward
from tasks.data.sample import annotate
from tasks.models.scorers import reward_name
from tasks.report.experiment_figures import Plot

COSINE, MIX, GREEDY = "cosine", "cosine + likelihood", "greedy"
NEEDS = frozenset({"scorer", "margin"})
SPEC = "clip_prm"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The same rollouts under each reward; then CLIP-PRM guided by each, with a margin of its own."""
    bench = prepare_bench(profile)
    benches = {
        name: rewarded(bench, rewards)
        for name, rewards in kinds_of(profile).items()
        if not quick or name in (COSINE, "objects", MIX)
    }
    judged = judge_rewards(
        profile.evaluate,
        {name: variant.rewards.rewards for name, variant in benches.items()},
        *samples_and_truth(next(iter(benches.values()))),
    )
    greedy = arm(bench, GREEDY)
    results, reference = [evidence(bench, greedy)], None
    for name, variant in benches.items():
        searched = arm(variant, SPEC, name)
        facts = {"tau": variant.rewards.margin, "below_tau": variant.rewards.below_margin}
        against = [greedy] if reference is None else [greedy, reference]
        measured = evidence(variant, searched, against, with_trace=True, facts=facts)
        results.append(replace(measured, metrics=(*measured.metrics, judged.metrics[name])))
        reference = reference or searched
    return results


def kinds_of(profile: Profile) -> dict[str, list[Reward]]:
    """The rewards by name: those that need only the profile's models, and those that the profile lists itself."""
    cosine = CosineReward(checkpoint=profile.scorer.checkpoint)
    kinds: dict[str, list[Reward]] = {
        COSINE: [cosine],
        "objects": [ObjectsReward()],
        "likelihood": [LikelihoodReward()],
        "object words": [TokenReward()],
        MIX: [cosine, LikelihoodReward()],
    }
    known = [reward for rewards in kinds.values() for reward in rewards]
    more = [reward for reward in profile.scorer.rewards if reward.model_copy(update={"weight": 1.0}) not in known]
    return kinds | {reward_name(reward): [reward.model_copy(update={"weight": 1.0})] for reward in more}


def rewarded(bench: Bench, rewards: list[Reward]) -> Bench:
    """The bench with these rewards: a single one on its own scale, several divided by their deviation."""
    alone = len(rewards) == 1
    plain = alone and isinstance(rewards[0], CosineReward) and rewards[0].checkpoint == bench.profile.scorer.checkpoint
    scorer = {
        "rewards": [] if plain else [reward.model_dump() for reward in rewards],
        "scale": "raw" if alone else "standard",
    }
    return guided(with_profile(bench, varied(bench.profile, scorer=scorer)), NEEDS)


def samples_and_truth(bench: Bench) -> tuple[Table[Sample], Table[Annotation] | None]:
    """The rollouts' samples, and their images' annotations if there are any: to judge rewards by, not to train on."""
    assert bench.drawn is not None
    samples = bench.drawn.samples
    if isinstance(bench.profile.data.train, FolderSource):
        return samples, None
    return samples, annotate.with_label("train")(bench.context.source, bench.drawn.images).annotations


def answer(findings: Findings) -> str:
    """Which reward detects false sentences, and what a search reaches with each."""
    rewards = [arm for arm in findings.arms if arm != GREEDY]
    known = [arm for arm in rewards if findings.has(arm, "auc")]
    lost = [arm for arm in rewards if findings.surely(arm, GREEDY, "recall") == "worse"]
    detects = (
        f"A true sentence is rewarded above a hallucinated one of its image with probability "
        f"{each(findings, known, 'auc')}. "
        if known
        else ""
    )
    return (
        f"{detects}CLIP-PRM guided by each has a CHAIRi of {each(findings, rewards, 'chair_i')}, greedy "
        f"{figure(findings, GREEDY, 'chair_i')}; beside the cosine, "
        f"{verdicts(findings, [arm for arm in rewards if arm != COSINE], COSINE)}. Recall is surely below greedy's with "
        f"{listed(lost) or 'none of them'}."
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=(
        "chair_i", "recall", "length", "auc", f"rank: {COSINE}", "rank: objects", "rank: likelihood",
        "rank: object words", f"rank: {MIX}", "tau", "below_tau", "wrong_chosen", "ms",
    ),
    plot=Plot("arms", ("chair_i", "recall", "auc", f"rank: {COSINE}")),
    method="All rewards score the same rollouts of the training images; rank: Spearman's correlation of two rewards' "
    "scores within an image, AUC against the images' annotations. Each search has the margin that the profile's "
    "rule gives of its own reward's scores, and stops as the profile says. objects: detected by the scorer, zero- "
    "shot; likelihood: the base's own, less that without the image; object words: FiSAO's cosines; the mix adds "
    "both over their deviations. Judges, plug-ins and other models take part if scorer.rewards names them.",
)  # fmt: skip
