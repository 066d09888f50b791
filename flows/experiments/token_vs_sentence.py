"""Rewards for object words against rewards for sentences, on the same rollouts; by kind of object and by iterations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flows.experiments.bench import first_round
from flows.experiments.contract import Experiment
from flows.experiments.trained import BASE, evidence_of
from flows.profiles.loading import Profile
from flows.round.measure import Model, measure
from flows.round.prepare import CaptionContext, prepare_loop
from flows.round.train import train_policy
from storage.artifacts import Table
from storage.schema import Rollout
from tasks.analysis.concepts import concepts, judge_objects
from tasks.analysis.excerpts import together
from tasks.analysis.findings import Evidence, Findings, each, figure
from tasks.configs.data import FolderSource
from tasks.configs.search import search_config
from tasks.configs.train import DpoConfig, FisaoConfig, SftConfig, switch_method
from tasks.data.sample import SampleResult, annotate
from tasks.report.experiment_figures import Plot
from tasks.search.search import search_needs

WORDS, PAIRS, CAPTIONS = "FiSAO", "DPO by reward", "SFT on CLIP-PRM"
SENTENCES = "PPO on sentences"  # FiSAO's PPO and rule of rewards, for sentences
ITERATIONS = (1, 2, 3)
# Factors of the supervised learning rate; the demo's own profiles have the same proportions.
RATES = {WORDS: 1 / 3, PAIRS: 1 / 10}
OFTEN, SELDOM = "chair_i: often made up", "chair_i: seldom made up"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The base, then policies trained on the same rollouts by sentence, by answer and by object word."""
    context = prepare_loop(profile)
    base = measure(context, BASE, context.base)
    drawn, guide = first_round(context, search_needs(search_config(profile.search, "clip_prm")))
    kinds = kinds_of(context, drawn, guide.rollouts)
    results = [by_kind(context, base, base, kinds, evidence_of(context, base, [], drift=False))]
    models: list[Model] = []
    for name, x, settings in arms_of(profile, quick):
        arm_context = replace(context, profile=settings)
        model = measure(arm_context, name, arm_context.handle(train_policy(arm_context, guide, drawn)))
        # All with the captions' policy; PPO on sentences, which comes last, with PPO on words as well.
        against = [base, *models[:1], *(models[-1:] if name.startswith(SENTENCES) else ())]
        models.append(model)
        results.append(replace(by_kind(arm_context, model, base, kinds, evidence_of(arm_context, model, against)), x=x))
    return results


def arms_of(profile: Profile, quick: bool) -> Iterator[tuple[str, float | None, Profile]]:
    """(name, iterations, profile) of each way to train on the rollouts."""
    config = profile.finetune
    searched = search_config(profile.search, "clip_prm")
    captions = switch_method(config, SftConfig)
    yield CAPTIONS, None, profile.model_copy(update={"search": searched, "finetune": captions})
    by_reward = switch_method(config, DpoConfig).dpo.model_copy(update={"by": "reward"})
    pairs = switch_method(config, DpoConfig, dpo=by_reward, lr=rate(profile, PAIRS))
    yield PAIRS, None, profile.model_copy(update={"finetune": pairs})
    numbers = ITERATIONS[: 1 if quick else None]
    for name, per, iterations in [*((WORDS, "tokens", n) for n in numbers), (SENTENCES, "sentences", numbers[-1])]:
        changes = {"iterations": iterations, "rewards": per}
        fisao = switch_method(config, FisaoConfig).fisao.model_copy(update=changes)
        shared = {"lr": rate(profile, WORDS), "batch_size": 2 * config.batch_size}
        rewarded = switch_method(config, FisaoConfig, fisao=fisao, **shared)
        yield f"{name}@{iterations}", float(iterations), profile.model_copy(update={"finetune": rewarded})


def rate(profile: Profile, method: str) -> float:
    """The learning rate: the profile's own if it has this method, else in proportion to its supervised rate."""
    own = {"fisao": WORDS, "dpo": PAIRS, "sentinel": PAIRS}.get(profile.finetune.method)
    if own == method:
        return profile.finetune.lr
    supervised = profile.finetune.lr / RATES[own] if own else profile.finetune.lr
    return supervised * RATES[method]


def kinds_of(context: CaptionContext, drawn: SampleResult, rollouts: Table[Rollout]) -> dict[str, str] | None:
    """Which objects the base often hallucinates in its training images; None if these have no annotations."""
    if isinstance(context.profile.data.train, FolderSource):
        return None
    truth = annotate.with_label("train")(context.source, drawn.images).annotations
    return judge_objects(rollouts, drawn.samples, truth).kinds


def by_kind(
    context: CaptionContext, model: Model, base: Model, kinds: dict[str, str] | None, measured: Evidence
) -> Evidence:
    """The evidence with CHAIR by kind of object, and its paired differences from the base."""
    by_concept = concepts.with_label(model.name)(
        context.profile.evaluate,
        model.captions,
        base.captions,
        context.annotations,
        subject=model.name,
        other=base.name,
        kinds=kinds,
    )
    pairs = dict(measured.pairs)
    if model is not base:
        both = [pairs[base.name], by_concept.comparisons]
        pairs[base.name] = together.with_label(model.name)(both).comparisons
    return replace(measured, metrics=(*measured.metrics, by_concept.metrics), pairs=pairs)


def answer(findings: Findings) -> str:
    """Which method lowers CHAIR most, for which objects, and what iterations add."""
    words = findings.line(WORDS)
    sentences = findings.line(SENTENCES)
    last, arms = words[-1], [CAPTIONS, PAIRS, *words, *sentences]
    same = ""
    if sentences:
        same = f" Rewards of sentences in the same PPO ({sentences[-1]}) instead: CHAIRi "
        same += f"{findings.compared(sentences[-1], last, 'chair_i')}."
    return (
        f"From {figure(findings, BASE, 'chair_i')}, CHAIRi goes to {each(findings, arms, 'chair_i')}. Words against "
        f"sentences ({last} against {CAPTIONS}): CHAIRi {findings.compared(last, CAPTIONS, 'chair_i')}, Recall "
        f"{findings.compared(last, CAPTIONS, 'recall')}.{same}"
    )


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=(
        "chair_i",
        "recall",
        "length",
        OFTEN,
        SELDOM,
        "recall: often made up",
        "recall: seldom made up",
        "ngram_drift",
    ),
    plot=Plot("arms", ("chair_i", "recall", OFTEN, SELDOM)),
    method="All train on the same rollouts: captions of CLIP-PRM (sentences chosen by reward), each prompt's "
    "best answer against its worst by mean reward (DPO), or a reward for every object word by PPO (FiSAO@N: N "
    "iterations, each on new answers); PPO on sentences is FiSAO's PPO with the same rule of rewards for sentences. "
    "DPO has a tenth of the profile's learning rate and FiSAO a third, as in the demo's profiles. Often made up: objects "
    "whose share of wrong mentions in the rollouts of training images is above the mean.",
)
