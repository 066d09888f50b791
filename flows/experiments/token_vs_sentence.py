"""Rewards for object words against rewards for sentences, from the same rollouts; by kind of object, by iterations."""

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
from tasks.analysis.findings import Evidence, Findings, listed
from tasks.configs.data import FolderSource
from tasks.configs.search import search_config
from tasks.configs.train import DpoConfig, FisaoConfig, SftConfig, switch_method
from tasks.data.sample import SampleResult, annotate
from tasks.report.experiment_figures import Plot
from tasks.search.search import search_needs

WORDS, PAIRS, CAPTIONS = "FiSAO", "DPO by reward", "SFT on CLIP-PRM"
ITERATIONS = (1, 2, 3)
# Of the profile's learning rate, which is for supervised captions; the demo's own profiles have these proportions.
RATES = {WORDS: 1 / 3, PAIRS: 1 / 10}
OFTEN, SELDOM = "chair_i: often made up", "chair_i: seldom made up"


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The base, then the same rollouts learned sentence by sentence, answer by answer, and word by word."""
    context = prepare_loop(profile)
    base = measure(context, BASE, context.base)
    drawn, guide = first_round(context, search_needs(search_config(profile.search, "clip_prm")))
    kinds = kinds_of(context, drawn, guide.rollouts)
    found = [by_kind(context, base, base, kinds, evidence_of(context, base, [], drift=False))]
    sentences: Model | None = None
    for name, x, settings in ways(profile, quick):
        way = replace(context, profile=settings)
        model = measure(way, name, way.handle(train_policy(way, guide, drawn).policy))
        against = [base] if sentences is None else [base, sentences]
        sentences = sentences or model
        found.append(replace(by_kind(way, model, base, kinds, evidence_of(way, model, against)), x=x))
    return found


def ways(profile: Profile, quick: bool) -> Iterator[tuple[str, float | None, Profile]]:
    """(name, iterations, profile) of each way to learn from the rollouts."""
    config = profile.finetune
    searched = search_config(profile.search, "clip_prm")
    captions = switch_method(config, SftConfig)
    yield CAPTIONS, None, profile.model_copy(update={"search": searched, "finetune": captions})
    by_reward = switch_method(config, DpoConfig).dpo.model_copy(update={"by": "reward"})
    pairs = switch_method(config, DpoConfig, dpo=by_reward, lr=rate(profile, PAIRS))
    yield PAIRS, None, profile.model_copy(update={"finetune": pairs})
    for iterations in ITERATIONS[: 1 if quick else None]:
        fisao = switch_method(config, FisaoConfig).fisao.model_copy(update={"iterations": iterations})
        shared = {"lr": rate(profile, WORDS), "batch_size": 2 * config.batch_size}
        words = switch_method(config, FisaoConfig, fisao=fisao, **shared)
        yield f"{WORDS}@{iterations}", float(iterations), profile.model_copy(update={"finetune": words})


def rate(profile: Profile, way: str) -> float:
    """The learning rate: the profile's own where it has this method, else in proportion to its supervised one."""
    own = {"fisao": WORDS, "dpo": PAIRS}.get(profile.finetune.method)
    if own == way:
        return profile.finetune.lr
    supervised = profile.finetune.lr / RATES[own] if own else profile.finetune.lr
    return supervised * RATES[way]


def kinds_of(context: CaptionContext, drawn: SampleResult, rollouts: Table[Rollout]) -> dict[str, str] | None:
    """Which objects the base often makes up about its training images; None where nothing says what is in these."""
    if isinstance(context.profile.data.train, FolderSource):
        return None
    truth = annotate.with_label("train")(context.source, drawn.images).annotations
    return judge_objects(rollouts, drawn.samples, truth).kinds


def by_kind(
    context: CaptionContext, model: Model, base: Model, kinds: dict[str, str] | None, measured: Evidence
) -> Evidence:
    """The evidence with CHAIR by kind of object, and what changed in it against the base."""
    found = concepts.with_label(model.name)(
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
        both = [pairs[base.name], found.comparisons]
        pairs[base.name] = together.with_label(model.name)(both).comparisons
    return replace(measured, metrics=(*measured.metrics, found.metrics), pairs=pairs)


def answer(found: Findings) -> str:
    """Which of them takes off most, for which objects, and what iterations add."""
    words = found.line(WORDS)
    arms = [CAPTIONS, PAIRS, *words]
    said = [
        f"{one} {found.said(one, 'chair_i')} "
        f"({found.compared(one, BASE, 'chair_i')}; Recall {found.compared(one, BASE, 'recall')})"
        for one in arms
    ]
    first = f"From the base's CHAIRi of {found.said(BASE, 'chair_i')}: {'; '.join(said)}."
    last = words[-1]
    second = f"Words against sentences ({last} against {CAPTIONS}): CHAIRi {found.compared(last, CAPTIONS, 'chair_i')}."
    return " ".join(filter(None, (first, second, _kinds(found, last), _iterations(found, words))))


def _kinds(found: Findings, last: str) -> str:
    """For which objects mentions became truer."""
    metrics = [row.metric for row in found.rows if row.arm == BASE and row.metric.startswith("chair_i: ")]
    said = []
    for metric in dict.fromkeys(metrics):
        gains = f"{CAPTIONS} {found.compared(CAPTIONS, BASE, metric)}, {WORDS} {found.compared(last, BASE, metric)}"
        if metric in (OFTEN, SELDOM):
            said.append(f"{metric.partition(': ')[2]} (base {found.said(BASE, metric)}): {gains}")
    others = [metric for metric in dict.fromkeys(metrics) if metric not in (OFTEN, SELDOM)]
    gained = [metric.partition(": ")[2] for metric in others if found.surely(last, BASE, metric) == "better"]
    pieces = [f"By object, {'; '.join(said)}."] if said else []
    if others:
        pieces.append(f"{last} surely gains on {listed(gained) or 'none'} of {len(others)} supercategories.")
    return " ".join(pieces)


def _iterations(found: Findings, words: list[str]) -> str:
    if len(words) < 2:
        return ""
    steps = [f"{found.x[one]:g}: {found.said(one, 'chair_i')}, Recall {found.said(one, 'recall')}" for one in words]
    return f"By iterations of feedback, {'; '.join(steps)}."


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
    method="All learn from the same rollouts: captions that CLIP-PRM found (sentences chosen by reward), each prompt's "
    "best answer against its worst by mean reward (DPO), or a reward for every object word by PPO (FiSAO@N: N "
    "iterations, all but the first on new answers). DPO learns at a tenth of the profile's learning rate and "
    "FiSAO at a third, as the demo's own do. Often made up: objects whose share of wrong mentions in the "
    "rollouts of training images is above the mean.",
)
