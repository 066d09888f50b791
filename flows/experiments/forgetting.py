"""Forgetting: what fine-tuning on captions costs in short answers and style, by replay share and by learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flows.experiments.bench import first_round
from flows.experiments.contract import Experiment
from flows.experiments.trained import BASE, answering, evidence_of, examples_of, supervised, with_accuracy
from flows.profiles.loading import Profile
from flows.profiles.varied import varied
from flows.round.measure import measure
from flows.round.prepare import prepare_loop
from flows.round.train import train_policy
from tasks.analysis.findings import Evidence, Findings, figure
from tasks.configs.train import SftConfig, switch_method
from tasks.report.experiment_figures import Plot
from tasks.search.search import search_needs

SHARES = (0.0, 0.1, 0.25, 0.5)
RATES = (0.1, 3.0)  # factors of the profile's learning rate
REPLAYED = 0.25  # the share that is replayed at the highest of them
REPLAY, RATE = "replay", "learning rate"
QUESTIONS = 300


def run(profile: Profile, quick: bool) -> list[Evidence]:
    """The base, then the same captions with more and more replay, and without replay at other learning rates."""
    profile = with_questions(supervised(answering(profile)))
    context = prepare_loop(profile)
    base = measure(context, BASE, context.base)
    drawn, guide = first_round(context, search_needs(profile.search))
    results = [with_accuracy(context, base, base, evidence_of(context, base, [], drift=False))]
    reference = None
    for name, x, settings in arms_of(profile, quick):
        arm_context = replace(context, profile=settings)
        trained = train_policy(arm_context, guide, drawn)
        model = measure(arm_context, name, arm_context.handle(trained))
        against = [base] if reference is None else [base, reference]
        reference = reference or model
        measured = evidence_of(arm_context, model, against, **examples_of(trained))
        results.append(replace(with_accuracy(arm_context, model, base, measured), x=x))
    return results


def with_questions(profile: Profile) -> Profile:
    """The profile with a general benchmark: its own number of questions, or up to 300, one per benchmark image."""
    questions = profile.drift.questions or min(QUESTIONS, profile.evaluate.images)
    return varied(profile, drift={"questions": questions})


def arms_of(profile: Profile, quick: bool) -> Iterator[tuple[str, float | None, Profile]]:
    """(name, swept number, profile) of each arm; all train on the same captions."""
    for share in SHARES[:: 2 if quick else 1]:
        yield f"{REPLAY}@{share:g}", share, varied(profile, finetune={"replay": replayed(profile, share)})
    for factor in RATES[: 0 if quick else None]:
        lr = factor * profile.finetune.lr
        settings = {"replay": replayed(profile, 0.0), "lr": lr}
        yield f"{RATE}@{lr:g}", lr, varied(profile, finetune=settings)
    if not quick:
        settings = {"replay": replayed(profile, REPLAYED), "lr": lr}
        yield f"{RATE} {lr:g}, {REPLAY} {REPLAYED:g}", None, varied(profile, finetune=settings)


def replayed(profile: Profile, share: float) -> dict[str, Any]:
    """The profile's replay settings with another share."""
    return switch_method(profile.finetune, SftConfig).replay.model_copy(update={"share": share}).model_dump()


def answer(findings: Findings) -> str:
    """What is forgotten without replay, how much of it replay prevents, and what that costs in captions."""
    line = findings.line(REPLAY)
    none, most = line[0], line[-1]
    rates = [arm for arm in findings.arms if arm.startswith(RATE)]
    worst = min(rates, key=lambda arm: findings.value(arm, "general_change"), default="")
    return (
        f"Trained on captions alone the policy {'surely forgets' if _forgets(findings, none) else 'does not surely forget'}"
        f": {figure(findings, none, 'general_change')} of accuracy from {figure(findings, BASE, 'accuracy')}. "
        f"{_least_share(findings, line)}, and a share of {findings.x[most]:g} changes CHAIRi: "
        f"{findings.compared(most, none, 'chair_i')}."
        + (f" By learning rate it loses most at {worst.replace('@', ' ')}: "
           f"{figure(findings, worst, 'general_change')}." if worst else "")
    )  # fmt: skip


def _forgets(findings: Findings, arm: str) -> bool:
    change = findings.own_change(arm, "general_change")
    return change is not None and change.side < 0


def _least_share(findings: Findings, line: list[str]) -> str:
    """The smallest share of replay at which no loss is sure."""
    lost = [_forgets(findings, arm) for arm in line]
    if not lost[0]:
        return "So there is no sure loss for replay to prevent"
    if all(lost):
        return "No share of replay prevents it"
    return f"The least share of replay at which no loss is sure is {findings.x[line[lost.index(False)]]:g}"


EXPERIMENT = Experiment(
    run=run,
    answer=answer,
    columns=(
        "accuracy",
        "general_change",
        "same_answers",
        "chair_i",
        "recall",
        "length",
        "ngram_drift",
        "vocabulary_kept",
        "examples",
    ),
    plot=Plot("arms", ("accuracy", "same_answers", "chair_i", "ngram_drift")),
    method="Training on the searched captions of one round, mixed with replay: the base's own greedy answers "
    "to questions about the same images (finetune.replay, self). General benchmark: short questions about the "
    "benchmark's images, asked before and after, paired; a policy that guesses may change its answers without "
    "losing accuracy, so unchanged answers are counted, too. More replay means more steps, because the captions stay "
    "the same. The demo's first policy answers no questions; the second, deployments/demo/policy-cot, takes its "
    "place.",
)
